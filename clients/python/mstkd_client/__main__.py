"""`python -m mstkd_client` is the command `mstkd-client`."""

import sys

from mstkd_client.cli import main

sys.exit(main())
