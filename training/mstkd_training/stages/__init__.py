"""Stages: each reads artifacts and leaves one."""
