#!/usr/bin/env bash
# A private SLURM on one machine: a controller and NODES virtual nodes n1, n2, …, with a munge key and socket of its
# own, all below DIR. It touches no configuration of the machine and listens on ports PORT and PORT+101 … only.
#
# Run:   tests/cluster/slurm.sh start DIR NODES     then   export SLURM_CONF=DIR/slurm.conf
#        tests/cluster/slurm.sh stop DIR
# Needs: root; Debian's slurmctld, slurmd, slurm-client and munge (`make cluster-packages`).
# What differs from a real cluster: every node claims CPUS cores (default 8) and 64 GB whatever there is, nothing is
# confined to them, and all nodes share one disk, one /dev/shm and one network stack.
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

start() {
    local dir=$1 nodes=$2 port=${PORT:-16817} host cpus=${CPUS:-8}
    host=$(hostname -s)
    mkdir -p "$dir"/{state,spool,log,run,munge}
    chmod 755 "$dir" "$dir"/*

    # munged refuses keys and sockets that others could reach or replace
    head -c 1024 /dev/urandom > "$dir/munge/key"
    chmod 600 "$dir/munge/key"
    chown -R munge:munge "$dir/munge"
    setpriv --reuid=munge --regid=munge --clear-groups /usr/sbin/munged --force --key-file="$dir/munge/key" \
        --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
    wait_for "munged" test -S "$dir/munge/socket"

    # FirstJobId: MPICH names shared memory after job and step; another private SLURM must not have the same numbers.
    # cred_expire is also how long a requeued job waits before it starts again (default 120 s)
    cat > "$dir/slurm.conf" <<CONF
ClusterName=test
FirstJobId=$(($(date +%s) % 60000000 + 1))
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MailProg=/bin/true
KillWait=20
MinJobAge=600
CONF
    local names="" number
    for number in $(seq 1 "$nodes"); do
        echo "NodeName=n$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 100 + number))" \
            "CPUs=$cpus RealMemory=64000 State=UNKNOWN" >> "$dir/slurm.conf"
        mkdir -p "$dir/spool/n$number"
        names+=,n$number
    done
    echo "PartitionName=test Nodes=${names#,} Default=YES MaxTime=INFINITE State=UP" >> "$dir/slurm.conf"

    export SLURM_CONF=$dir/slurm.conf
    /usr/sbin/slurmctld -c -f "$SLURM_CONF"
    for number in $(seq 1 "$nodes"); do /usr/sbin/slurmd -N "n$number" -f "$SLURM_CONF"; done
    wait_for "$nodes idle nodes" idle "$nodes"
}

idle() { [ "$(sinfo --noheader --states=idle --format=%D 2> /dev/null)" = "$1" ]; }

wait_for() {
    local what=$1
    shift
    for _ in $(seq 150); do
        if "$@"; then return; fi
        sleep 0.1
    done
    echo "slurm.sh: no $what after 15 s; see the logs below $dir" >&2
    exit 1
}

stop() {
    local dir=$1 file pid
    export SLURM_CONF=$dir/slurm.conf
    timeout 10 scancel --quiet --user=root 2> /dev/null || true
    for _ in $(seq 100); do # a slurmd that ends first would leave its jobs behind
        [ -n "$(timeout 10 squeue --noheader 2> /dev/null)" ] || break
        sleep 0.3
    done
    for file in "$dir"/run/slurmd.*.pid "$dir/run/slurmctld.pid" "$dir/munge/pid"; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2> /dev/null || continue
        for _ in $(seq 100); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2> /dev/null || true
    done
}

case "${1:-}:$#" in
    start:3) start "$(realpath -m "$2")" "$3" ;;
    stop:2) stop "$(realpath -m "$2")" ;;
    *) usage ;;
esac
