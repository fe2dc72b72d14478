#!/usr/bin/env bash
# By hand, as root on Debian: the real `ray up cluster/onprem.yaml` over ssh, a search submitted to it with
# `ray job submit`, its results fetched, `ray down`. About five minutes.
#
# Head, worker and laptop are machines of their own as far as Linux can make them so: each has its own processes,
# network, /tmp, /dev/shm and home, and they see each other through a bridge that nobody else is on. So `ray stop`
# ends only what is theirs, and everything ends with this script. They share one directory, as by NFS.
set -euo pipefail
self=${self:-$(realpath "$0")}

if [ "${1:-}" = "" ]; then # Outside: what they need, then the network.
    repository=$(cd "$(dirname "$0")/../.." && pwd)
    work=$(mktemp -d /var/tmp/cofi-onprem.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/deb" "$work/root" "$work/shared" "$work/repository"
    # Unpacked, not installed: nothing may listen on this machine.
    (cd "$work/deb" && apt-get download -qq openssh-server rsync libwrap0 libpopt0 libxxhash0)
    for package in "$work"/deb/*.deb; do dpkg -x "$package" "$work/root"; done
    ssh-keygen -q -t ed25519 -N '' -f "$work/key"
    ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
    export repository work python="${PYTHON:-$repository/.venv/bin/python}"
    export PATH="$work/root/usr/bin:$PATH" LD_LIBRARY_PATH="$work/root/usr/lib/$(uname -m)-linux-gnu"
    for machine in laptop head worker; do
        home=$work/$machine/home
        mkdir -p "$work/$machine/tmp" "$home/.ssh" "$home/.config/pip"
        printf 'root:x:0:0::%s:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n' "$home" >"$work/$machine/passwd"
        cp "$work/key.pub" "$home/.ssh/authorized_keys"
        # The project's packages are there already, as on a machine without an index; setup.sh finds them.
        "$python" -m venv --without-pip "$home/cofi-tune/.venv"
        "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
            >"$("$home/cofi-tune/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/all.pth"
        for command in ray pip; do
            module=$([ $command = ray ] && echo ray.scripts.scripts || echo pip)
            printf '#!/bin/sh\nexec "$(dirname "$0")/python" -m %s "$@"\n' $module >"$home/cofi-tune/.venv/bin/$command"
            chmod +x "$home/cofi-tune/.venv/bin/$command"
        done
        # pip reads this one the other way round: no isolation.
        printf '[global]\nno-index = true\n[install]\nno-build-isolation = false\nno-deps = true\n' >"$home/.config/pip/pip.conf"
    done
    unshare --mount --pid --net --fork --kill-child --mount-proc bash "$self" inside
    exit
fi

machine() { # NAME NUMBER COMMAND...: in a machine of its own, at 10.77.0.NUMBER
    local name=$1 number=$2
    shift 2
    unshare --mount --pid --net --fork --kill-child --mount-proc bash "$self" boot "$name" "$number" "$@" &
    local outer=$! inner=
    # unshare's child is what has the new network.
    until inner=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null) && [ -n "$inner" ]; do sleep 0.1; done
    ip link add "v$number" type veth peer name eth0 netns "${inner%% *}"
    ip link set "v$number" master bridge up
}

case $1 in
boot) # In a machine: its own places, its address, then its command.
    name=$2 number=$3
    shift 3
    mount --bind "$work/$name/passwd" /etc/passwd
    mount --bind "$work/$name/tmp" /tmp
    mount -t tmpfs tmpfs /dev/shm
    mount -t tmpfs tmpfs /run
    mkdir /run/sshd
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
    ip link set lo up
    ip address add "10.77.0.$number/24" dev eth0
    ip link set eth0 up
    ip route add default via 10.77.0.1 # nobody is there, but it tells Ray which address is its own
    export HOME="$work/$name/home"
    # A login shell forgets where rsync is.
    printf 'export PATH="%s:$PATH"\n' "$work/root/usr/bin" >"$HOME/.bash_profile"
    cd "$HOME"
    exec "$@"
    ;;
inside)
    mount --make-rprivate /
    # Wherever it is: every machine has a /tmp of its own.
    mount --bind "$repository" "$work/repository"
    export repository=$work/repository self=$work/repository/tests/cluster/onprem.sh
    ip link set lo up
    ip link add bridge type bridge
    ip link set bridge up
    sshd=("$work/root/usr/sbin/sshd" -D -e -f /dev/null -h "$work/host_key" -o UsePAM=no -o StrictModes=no
        -o PidFile=none -o "SetEnv=LD_LIBRARY_PATH=$LD_LIBRARY_PATH PATH=$PATH")
    machine head 2 "${sshd[@]}" 2>"$work/head/sshd.log"
    machine worker 3 "${sshd[@]}" 2>"$work/worker/sshd.log"
    unshare --mount --pid --net --fork --kill-child --mount-proc bash "$self" boot laptop 4 bash "$self" laptop &
    laptop=$!
    until inner=$(cat "/proc/$laptop/task/$laptop/children" 2>/dev/null) && [ -n "$inner" ]; do sleep 0.1; done
    ip link add v4 type veth peer name eth0 netns "${inner%% *}"
    ip link set v4 master bridge up
    wait "$laptop"
    ;;
laptop) # What a user types.
    set -x
    cd "$repository"
    export PATH="$HOME/cofi-tune/.venv/bin:$PATH" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
    export RAY_UP_enable_autoscaler_v2=0 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$repository
    ray get-auth-token --generate >/dev/null
    chmod 600 ~/.ray/auth_token
    sed -e 's/head_ip: CHANGEME/head_ip: 10.77.0.2/' -e 's/- CHANGEME/- 10.77.0.3/' \
        -e 's/ssh_user: CHANGEME/ssh_user: root/' -e "s|ssh_private_key: CHANGEME|ssh_private_key: $work/key|" \
        cluster/onprem.yaml >"$work/onprem.yaml"
    python -m cluster.check "$work/onprem.yaml"
    ray up --yes "$work/onprem.yaml"
    for _ in $(seq 25); do
        # The worker has CPUs, the head has none.
        ray exec "$work/onprem.yaml" 'ray status' >"$work/status" 2>&1 || cat "$work/status"
        grep -q ' CPU' "$work/status" && break
        sleep 3
    done
    cat "$work/status"
    ray dashboard "$work/onprem.yaml" >"$work/dashboard.log" 2>&1 &
    until python -c 'import socket; socket.create_connection(("127.0.0.1", 8265))' 2>/dev/null; do sleep 1; done
    python -c '
import urllib.error, urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:8265/api/jobs/")
    print("without a token: LET IN")
except urllib.error.HTTPError as error:
    print("without a token:", error.code)'
    ssh -i "$work/key" -o StrictHostKeyChecking=no 10.77.0.2 "stat -c '%a %n' .ray/auth_token; grep -c . /proc/net/tcp"
    ssh -i "$work/key" -o StrictHostKeyChecking=no 10.77.0.3 "stat -c '%a %n' .ray/auth_token"
    cat >"$work/shared/easy.py" <<'SPACE'
def space(draw):
    sparsity = draw.suggest_float("cofi/target_sparsity", 0.3, 0.6)
    return {"cofi/target_sparsity": sparsity, "cofi/mask_travel": 40.0, "cofi/warmup_fraction": 0.3}


POINTS = [{"cofi/target_sparsity": 0.5}]
SPACE
    ray job submit --address http://127.0.0.1:8265 --entrypoint-resources '{"driver": 1}' -- \
        python -m cofi_tune.search --address auto --task grammar --model tiny --trials 2 --name onprem \
        --max-train-samples 480 --epochs 4 --teacher-epochs 1 --cpus-per-worker 1 --workers-per-trial 1 \
        --gpus-per-worker 0 --space "$work/shared/easy.py" --output "$work/shared" --tracking-uri http://127.0.0.1:5000
    ray exec "$work/onprem.yaml" 'ls -l ~/mlflow'
    rsync -a -e "ssh -i $work/key -o StrictHostKeyChecking=no" "root@10.77.0.2:$work/shared/onprem/" "$HOME/fetched/"
    ls "$HOME/fetched"
    cat "$HOME/fetched/front.csv"
    ray down --yes "$work/onprem.yaml"
    for address in 10.77.0.2 10.77.0.3; do
        ssh -i "$work/key" -o StrictHostKeyChecking=no $address \
            'echo "$(hostname -I 2>/dev/null) Ray processes left: $(ps -eo args | grep -c "[r]aylet/raylet\|[g]cs_server")"'
    done
    ;;
esac
