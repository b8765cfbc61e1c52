#!/usr/bin/env bash
# Starts tritonserver over a model repository; it replaces this shell, so SIGTERM reaches it and
# it finishes the requests in flight. Arguments are handed to tritonserver, after these settings:
#
#   MSTKD_MODEL_REPOSITORY   folder of the models (/models)
#   MSTKD_GRPC_PORT, MSTKD_HTTP_PORT, MSTKD_METRICS_PORT   (8001, 8000, 8002)
#   MSTKD_ADDRESS            address of gRPC and metrics (0.0.0.0)
#   MSTKD_HTTP_ADDRESS       address of HTTP (MSTKD_ADDRESS; 127.0.0.1 where gRPC uses TLS,
#                            since Triton's HTTP has none)
#   MSTKD_MODEL_CONTROL      none, poll or explicit (none)
#   MSTKD_ALLOW_CONTROL_KEY_FILE   file of a key, 16 or more of A-Z a-z 0-9 _ -; who sends it may
#                            load models, attach shared memory, trace and set the log. Without it
#                            nobody may. gRPC wants it as 'triton-grpc-protocol-mstkd-control: KEY',
#                            HTTP as 'mstkd-control: KEY'
#   MSTKD_TLS_CERT, MSTKD_TLS_KEY  PEM files: gRPC over TLS
#   MSTKD_TLS_CLIENT_CA      PEM file: clients must show a certificate that it signed
#   MSTKD_EXIT_TIMEOUT       seconds for requests in flight after SIGTERM (30)
#   MSTKD_GPU_METRICS        true or false (true)
#   MSTKD_TRITONSERVER       the program (tritonserver)
#
# 'entrypoint.sh health' asks a running server whether every model is ready, for a HEALTHCHECK.
set -euo pipefail

fail() {
  printf 'entrypoint: %s\n' "$1" >&2
  exit 2
}

# want NAME PATTERN MEANING: the variable must match.
want() {
  local value=${!1}
  [[ $value =~ ^($2)$ ]] || fail "$1='$value': must be $3."
}

readable() {
  [[ -r ${!1} && -f ${!1} ]] || fail "$1='${!1}': no such file, or it cannot be read."
}

: "${MSTKD_MODEL_REPOSITORY:=/models}"
: "${MSTKD_GRPC_PORT:=8001}" "${MSTKD_HTTP_PORT:=8000}" "${MSTKD_METRICS_PORT:=8002}"
: "${MSTKD_ADDRESS:=0.0.0.0}" "${MSTKD_HTTP_ADDRESS:=}"
: "${MSTKD_MODEL_CONTROL:=none}" "${MSTKD_ALLOW_CONTROL_KEY_FILE:=}"
: "${MSTKD_TLS_CERT:=}" "${MSTKD_TLS_KEY:=}" "${MSTKD_TLS_CLIENT_CA:=}"
: "${MSTKD_EXIT_TIMEOUT:=30}" "${MSTKD_GPU_METRICS:=true}"
: "${MSTKD_TRITONSERVER:=tritonserver}"

if [[ $# == 1 && $1 == health ]]; then
  address=${MSTKD_HTTP_ADDRESS:-$MSTKD_ADDRESS}
  exec 3<>"/dev/tcp/${address/#0.0.0.0/127.0.0.1}/$MSTKD_HTTP_PORT"
  printf 'GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  read -r -t 3 answer <&3
  [[ $answer == 'HTTP/1.1 200 '* ]]
  exit
fi

for name in MSTKD_GRPC_PORT MSTKD_HTTP_PORT MSTKD_METRICS_PORT; do
  want "$name" '[1-9][0-9]{0,4}' 'a port'
  ((${!name} <= 65535)) || fail "$name='${!name}': must be a port."
done
want MSTKD_EXIT_TIMEOUT '[0-9]{1,5}' 'a number of seconds'
want MSTKD_MODEL_CONTROL 'none|poll|explicit' 'none, poll or explicit'
want MSTKD_GPU_METRICS 'true|false' 'true or false'
[[ -d $MSTKD_MODEL_REPOSITORY ]] ||
  fail "MSTKD_MODEL_REPOSITORY='$MSTKD_MODEL_REPOSITORY': no such folder. Mount a model repository there."
command -v -- "$MSTKD_TRITONSERVER" >/dev/null ||
  fail "MSTKD_TRITONSERVER='$MSTKD_TRITONSERVER': no such program."

if [[ -n $MSTKD_ALLOW_CONTROL_KEY_FILE ]]; then
  readable MSTKD_ALLOW_CONTROL_KEY_FILE
  control_key=$(<"$MSTKD_ALLOW_CONTROL_KEY_FILE")
  [[ $control_key =~ ^[A-Za-z0-9_-]{16,}$ ]] ||
    fail 'MSTKD_ALLOW_CONTROL_KEY_FILE: the key must be one line of 16 or more of A-Z a-z 0-9 _ -.'
else
  [[ $MSTKD_MODEL_CONTROL != explicit ]] ||
    fail 'MSTKD_MODEL_CONTROL=explicit needs MSTKD_ALLOW_CONTROL_KEY_FILE: nobody could load a model.'
  # A key that nobody knows, new at each start.
  control_key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
fi

tls=()
if [[ -n $MSTKD_TLS_CERT$MSTKD_TLS_KEY ]]; then
  readable MSTKD_TLS_CERT
  readable MSTKD_TLS_KEY
  tls+=(
    --grpc-use-ssl=true
    "--grpc-server-cert=$MSTKD_TLS_CERT"
    "--grpc-server-key=$MSTKD_TLS_KEY"
  )
  : "${MSTKD_HTTP_ADDRESS:=127.0.0.1}"
fi
if [[ -n $MSTKD_TLS_CLIENT_CA ]]; then
  ((${#tls[@]})) || fail 'MSTKD_TLS_CLIENT_CA needs MSTKD_TLS_CERT and MSTKD_TLS_KEY.'
  readable MSTKD_TLS_CLIENT_CA
  tls+=(--grpc-use-ssl-mutual=true "--grpc-root-cert=$MSTKD_TLS_CLIENT_CA")
fi
: "${MSTKD_HTTP_ADDRESS:=$MSTKD_ADDRESS}"

closed=shared-memory,model-repository,trace,logging
exec "$MSTKD_TRITONSERVER" \
  "--model-repository=$MSTKD_MODEL_REPOSITORY" \
  "--model-control-mode=$MSTKD_MODEL_CONTROL" \
  --disable-auto-complete-config \
  --strict-readiness=true \
  "--grpc-address=$MSTKD_ADDRESS" "--grpc-port=$MSTKD_GRPC_PORT" \
  "--http-address=$MSTKD_HTTP_ADDRESS" "--http-port=$MSTKD_HTTP_PORT" \
  "--metrics-address=$MSTKD_ADDRESS" "--metrics-port=$MSTKD_METRICS_PORT" \
  --metrics-config=summary_latencies=true \
  "--allow-gpu-metrics=$MSTKD_GPU_METRICS" \
  "--exit-timeout-secs=$MSTKD_EXIT_TIMEOUT" \
  --grpc-keepalive-permit-without-calls=1 \
  --grpc-http2-min-recv-ping-interval-without-data=10000 \
  "--grpc-restricted-protocol=$closed:mstkd-control=$control_key" \
  "--http-restricted-api=$closed:mstkd-control=$control_key" \
  ${tls[@]+"${tls[@]}"} \
  "$@"
