#!/usr/bin/env bash
# A real RabbitMQ and a real Pulsar for tests, on free loopback ports, without root and without containers.
#
#   brokers.sh [start|stop|status|kill|freeze|thaw] [rabbitmq|pulsar]     both brokers when none is named
#   brokers.sh env                 the addresses, as lines for a shell or a .env file (starts nothing)
#   brokers.sh check               says what is missing, and which package has it
#   brokers.sh install             fetches Pulsar's jars (start does it by itself)
#   brokers.sh rabbitmqctl …       rabbitmqctl for this RabbitMQ
#
#   BACKHAUL_BROKERS_DIR   data, logs, ports and addresses of one instance (.brokers); several run side by side
#   PULSAR_LIB             Pulsar's jars, shared by all instances (.brokers/pulsar/lib)
#   PULSAR_HEAP            heap of Pulsar's JVM (384m)
#   BROKERS_WAIT_S         how long start waits for health, for each broker (180)
#
# kill is SIGKILL, freeze and thaw are SIGSTOP and SIGCONT. A restart keeps ports and data; delete the folder to
# start empty. Lines in <dir>/pulsar.extra.conf and <dir>/rabbitmq.extra.conf are added to the brokers' own settings;
# <dir>/rabbitmq.plugins is RabbitMQ's list of plugins ([rabbitmq_management].), none without it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
dir=${BACKHAUL_BROKERS_DIR:-$root/.brokers}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
lib=${PULSAR_LIB:-$root/.brokers/pulsar/lib}
wait_s=${BROKERS_WAIT_S:-180}

say() { echo "brokers: $*"; }
fail() { echo "brokers: $*" >&2; exit 1; }

# ---- tools

# Debian's /usr/sbin/rabbitmq-server insists on a user and on folders of its own; the script behind it does not.
rabbitmq_tool() {
  if [ -x "/usr/lib/rabbitmq/bin/$1" ]; then echo "/usr/lib/rabbitmq/bin/$1"; else command -v "$1" || true; fi
}

jars_complete() { [ -f "$lib/.complete" ] && [ "$(cat "$lib/.complete")" = "$(jars_wanted)" ]; }
jars_wanted() { sha256sum <"$here/pulsar/pom.xml" | cut -d' ' -f1; }

missing() {
  local absent=()
  for tool in curl flock setsid; do command -v "$tool" >/dev/null || absent+=("$tool"); done
  if [ "${1:-rabbitmq}" = rabbitmq ]; then [ -n "$(rabbitmq_tool rabbitmq-server)" ] || absent+=(rabbitmq-server); fi
  if [ "${1:-pulsar}" = pulsar ]; then
    command -v java >/dev/null || absent+=(java)
    jars_complete || command -v mvn >/dev/null || absent+=(mvn)
  fi
  for tool in "${absent[@]}"; do
    case $tool in
      java) echo "java is missing; Debian's package: openjdk-17-jre-headless" ;;
      mvn) echo "mvn is missing; Debian's package: maven" ;;
      flock | setsid) echo "$tool is missing; Debian's package: util-linux" ;;
      *) echo "$tool is missing; Debian's package: $tool" ;;
    esac
  done
  [ -r /proc/self/environ ] || echo "/proc is missing; use compose.yaml where there is no Linux"
}

check() {
  local lines
  lines=$(missing "$@")
  [ -z "$lines" ] || { echo "$lines" >&2; return 1; }
}

# ---- ports: chosen once, below the range that outgoing connections take theirs from, so that a broker
#      which is down for a while finds its port free when it comes back

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while :; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    case " $* " in *" $port "*) continue ;; esac
    answers "$port" || { echo "$port"; return; }
  done
}

load_ports() {
  if [ ! -s "$dir/ports" ]; then
    local a b c d
    a=$(free_port); b=$(free_port "$a"); c=$(free_port "$a" "$b"); d=$(free_port "$a" "$b" "$c")
    printf 'amqp=%s\ndist=%s\nbinary=%s\nhttp=%s\n' "$a" "$b" "$c" "$d" >"$dir/ports.new"
    mv "$dir/ports.new" "$dir/ports"
  fi
  # shellcheck disable=SC1091
  . "$dir/ports"
  cat >"$dir/env.new" <<LINES
BACKHAUL_TEST_AMQP_URL=amqp://127.0.0.1:$amqp
BACKHAUL_TEST_PULSAR_URL=ws://127.0.0.1:$http
BACKHAUL_TEST_PULSAR_BINARY_URL=pulsar://127.0.0.1:$binary
LINES
  mv "$dir/env.new" "$dir/env"
}

# ---- processes: a recorded pid counts only while that process carries this instance's mark, so that a pid
#      which the system gave to somebody else is never signalled

pid_of() {
  local pid mark="BACKHAUL_BROKER=$dir/$1"
  pid=$(cat "$dir/$1/pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && grep -qzxF "$mark" "/proc/$pid/environ" 2>/dev/null && echo "$pid"
}

state_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1; }

# The mark vanishes before the sockets do, and the first thread may be dead before the others: a process is gone
# when it has no threads left, or only a dead one that nobody has collected.
gone() {
  local tasks=(/proc/"$1"/task/*)
  [ ! -e "${tasks[0]}" ] || { [ ${#tasks[@]} = 1 ] && [ "$(state_of "$1")" = Z ]; }
}

gone_within() { # pid, seconds
  local end=$((SECONDS + $2))
  until gone "$1"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.05
  done
}

# The lock's descriptor (9) stays with this script: a broker that inherited it would hold it for ever.
launch() { # broker, command …
  local broker=$1
  shift
  rm -f "$dir/$broker/pid"
  BACKHAUL_BROKER="$dir/$broker" setsid "$@" >>"$dir/$broker/out.log" 2>&1 </dev/null 9>&- &
  # RabbitMQ replaces it with the pid of its virtual machine
  [ -s "$dir/$broker/pid" ] || echo $! >"$dir/$broker/pid"
}

# ---- RabbitMQ

rabbitmq_env() {
  local home=$dir/rabbitmq
  mkdir -p "$home/data" "$home/log"
  : >"$home/rabbitmq-env.conf"
  cp "$dir/rabbitmq.plugins" "$home/enabled_plugins" 2>/dev/null || echo '[].' >"$home/enabled_plugins"
  export HOME=$home # the Erlang cookie lives here
  export RABBITMQ_NODENAME="backhaul-$(echo "$dir" | sha256sum | cut -c1-12)@localhost"
  export RABBITMQ_CONF_ENV_FILE=$home/rabbitmq-env.conf RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf
  export RABBITMQ_ENABLED_PLUGINS_FILE=$home/enabled_plugins RABBITMQ_PID_FILE=$home/pid
  export RABBITMQ_MNESIA_BASE=$home/data RABBITMQ_LOG_BASE=$home/log RABBITMQ_DIST_PORT=$dist
  export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
  export ERL_EPMD_ADDRESS=127.0.0.1
}

launch_rabbitmq() (
  rabbitmq_env
  {
    echo "listeners.tcp.1 = 127.0.0.1:$amqp"
    echo 'disk_free_limit.absolute = 50MB'
    echo 'log.file.level = info'
    cat "$dir/rabbitmq.extra.conf" 2>/dev/null || true
  } >"$dir/rabbitmq/rabbitmq.conf"
  cd "$dir/rabbitmq"
  launch rabbitmq "$(rabbitmq_tool rabbitmq-server)"
)

# A listening port is not enough: a frozen broker has one too. The protocol header gets Connection.Start back.
healthy_rabbitmq() {
  local ask="exec 3<>/dev/tcp/127.0.0.1/$amqp && printf 'AMQP\\0\\0\\11\\1' >&3 && head -c 1 <&3 | grep -q ."
  timeout 5 bash -c "$ask" 2>/dev/null
}

# ---- Pulsar

install_pulsar() {
  mkdir -p "$lib"
  (
    flock 8
    jars_complete && exit 0
    say "fetching Pulsar's jars into $lib (about 235 MB; some minutes the first time)"
    rm -f "$lib"/*.jar
    mvn -q -B -s "$here/pulsar/settings.xml" -f "$here/pulsar/pom.xml" \
      dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$lib" || fail 'Maven could not fetch the jars'
    jars_wanted >"$lib/.complete"
  ) 8>"$lib/.lock"
}

launch_pulsar() (
  jars_complete || install_pulsar
  mkdir -p "$dir/pulsar"
  {
    sed -e "s/@BINARY@/$binary/" -e "s/@HTTP@/$http/" "$here/pulsar/standalone.conf"
    cat "$dir/pulsar.extra.conf" 2>/dev/null || true
  } >"$dir/pulsar/standalone.conf"
  opens=()
  for module in java.base/java.nio java.base/jdk.internal.misc java.base/java.lang java.base/java.util.zip \
    java.base/sun.net java.base/jdk.internal.platform java.management/sun.management \
    jdk.management/com.sun.management.internal; do
    opens+=(--add-opens "$module=ALL-UNNAMED")
  done
  cd "$dir/pulsar"
  launch pulsar java -Xms64m -Xmx"${PULSAR_HEAP:-384m}" -XX:MaxDirectMemorySize=256m -XX:+UseSerialGC \
    -Dlog4j.configurationFile="$here/pulsar/log4j2.xml" -Dpulsar.log.level="${PULSAR_LOG_LEVEL:-warn}" \
    -Dio.netty.tryReflectionSetAccessible=true "${opens[@]}" \
    -cp "$lib/*" org.apache.pulsar.PulsarStandaloneStarter --config "$dir/pulsar/standalone.conf" \
    --metadata-dir "$dir/pulsar/metadata" --bookkeeper-dir "$dir/pulsar/bookkeeper" -nfw -nss
)

# The health check writes a message and reads it back; the port opens seconds before that works.
# PULSAR_TOKEN: a broker that asks for one is asked with it
healthy_pulsar() {
  local auth=()
  [ -z "${PULSAR_TOKEN:-}" ] || auth=(-H "Authorization: Bearer $PULSAR_TOKEN")
  [ "$(curl -s -m 5 "${auth[@]}" "http://127.0.0.1:$http/admin/v2/brokers/health" || true)" = ok ]
}

# ---- verbs

ports_of() { if [ "$1" = rabbitmq ]; then echo "$amqp"; else echo "$binary $http"; fi; }

begin() {
  local broker=$1 pid port
  check "$broker" || fail "$broker cannot start"
  if pid=$(pid_of "$broker"); then
    [ "$(state_of "$pid")" != T ] || fail "$broker is frozen (pid $pid): thaw it first"
    return
  fi
  for port in $(ports_of "$broker"); do
    ! answers "$port" || fail "$broker's port $port is taken; delete $dir/ports for new ones"
  done
  mkdir -p "$dir/$broker"
  say "starting $broker (log: $dir/$broker/out.log)"
  "launch_$broker"
}

await() {
  local broker=$1 started=$SECONDS
  until "healthy_$broker"; do
    if ! pid_of "$broker" >/dev/null; then
      sleep 0.5 # RabbitMQ's launcher hands over to its virtual machine
      pid_of "$broker" >/dev/null || { tail -n 20 "$dir/$broker/out.log" >&2; fail "$broker ended while starting"; }
    fi
    [ $((SECONDS - started)) -lt "$wait_s" ] || fail "$broker is not healthy after $wait_s s; see its log"
    sleep 0.2
  done
  say "$broker is healthy on 127.0.0.1, port $(ports_of "$broker" | sed 's/ / and /') (pid $(pid_of "$broker"))"
}

end() { # broker, signal, seconds
  local pid
  pid=$(pid_of "$1") || { say "$1 is not running"; return; }
  kill "-$2" "$pid"
  # a frozen process takes no signal but SIGKILL
  [ "$(state_of "$pid")" != T ] || kill -CONT "$pid"
  if ! gone_within "$pid" "$3"; then
    say "$1 did not end within $3 s, killing it"
    ! pid_of "$1" >/dev/null || kill -KILL "$pid"
    gone_within "$pid" 10 || fail "$1 (pid $pid) does not end"
  fi
  rm -f "$dir/$1/pid"
  say "$1 ended"
}

signal() { # broker, signal
  local pid
  pid=$(pid_of "$1") || fail "$1 is not running"
  kill "-$2" "$pid"
}

status() {
  local pid
  if ! pid=$(pid_of "$1"); then say "$1 is stopped"; return 3; fi
  if [ "$(state_of "$pid")" = T ]; then say "$1 is frozen (pid $pid)"; return 4; fi
  if ! "healthy_$1"; then say "$1 runs, but is not healthy (pid $pid)"; return 5; fi
  say "$1 is healthy on 127.0.0.1, port $(ports_of "$1" | sed 's/ / and /') (pid $pid)"
}

verb=${1:-start}
[ $# -eq 0 ] || shift
case $verb in
  check) check "$@"; exit ;;
  install) check pulsar; install_pulsar; exit ;;
  start | stop | status | kill | freeze | thaw | env | rabbitmqctl) ;;
  *) fail "unknown verb $verb: start, stop, status, kill, freeze, thaw, env, check, install or rabbitmqctl" ;;
esac

exec 9>"$dir/lock"
flock 9
load_ports
case $verb in
  env) cat "$dir/env"; exit ;;
  rabbitmqctl) rabbitmq_env; exec 9>&-; exec "$(rabbitmq_tool rabbitmqctl)" "$@" ;;
esac

brokers=("$@")
[ $# -gt 0 ] || brokers=(rabbitmq pulsar)
for broker in "${brokers[@]}"; do
  case $broker in rabbitmq | pulsar) ;; *) fail "unknown broker $broker: rabbitmq or pulsar" ;; esac
done

case $verb in
  start)
    for broker in "${brokers[@]}"; do begin "$broker"; done
    for broker in "${brokers[@]}"; do await "$broker"; done
    say "addresses in $dir/env"
    ;;
  stop) for broker in "${brokers[@]}"; do end "$broker" TERM 30; done ;;
  kill) for broker in "${brokers[@]}"; do end "$broker" KILL 10; done ;;
  freeze) for broker in "${brokers[@]}"; do signal "$broker" STOP; done ;;
  thaw) for broker in "${brokers[@]}"; do signal "$broker" CONT; done ;;
  status)
    code=0
    for broker in "${brokers[@]}"; do status "$broker" || code=$?; done
    exit "$code"
    ;;
esac
