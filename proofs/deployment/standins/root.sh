#!/bin/sh
# root.sh FOLDER NODE NPM [servers]: makes root file systems in the place of the bases of the images, for machines that reach
# no registry of images. FOLDER/node.tar is Debian 12 with Node from npm. With "servers", FOLDER/servers.tar has also Python
# and the servers that deploy/compose takes as images of others. NODE is a program, NPM the folder of the package. Needs
# debootstrap, and to be root.
set -eu
root=$1/root
node=$2
npm=$3

install_packages() {
  chroot "$root" apt-get install --quiet --yes --no-install-recommends "$@"
}

pack() {
  tar --create --file "$1" --directory "$root" --exclude='./var/lib/apt/lists/*' --exclude=./usr/sbin/policy-rc.d \
    --exclude='./var/cache/apt/*' --exclude='./var/lib/postgresql/*' .
}

debootstrap --variant=minbase bookworm "$root"
# No service starts while packages are installed.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive
install_packages ca-certificates libatomic1
# The authorities that this machine trusts, for registries behind a proxy.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi
install -m 0755 "$node" "$root/usr/local/bin/node"
mkdir -p "$root/usr/local/lib/node_modules"
cp -a "$npm" "$root/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
pack "$1/node.tar"

if [ "${4:-}" = servers ]; then
  install_packages nats-server postgresql prometheus python3 python3-venv wget
  pack "$1/servers.tar"
fi
