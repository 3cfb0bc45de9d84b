#!/bin/sh
# root.sh FOLDER NODE NPM: makes a root file system in the place of the bases of the images, for machines that reach no
# registry of images: Debian 12 with Node from npm, and with the servers that deploy/compose takes as images of others.
# NODE is a program, NPM the folder of the package. Needs debootstrap, and to be root.
set -eu
root=$1
node=$2
npm=$3

debootstrap --variant=minbase bookworm "$root"
# No service starts while packages are installed.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get install --yes --no-install-recommends \
  ca-certificates libatomic1 nats-server postgresql prometheus python3 python3-venv wget
chroot "$root" apt-get clean
rm -rf "$root/usr/sbin/policy-rc.d" "$root/var/lib/apt/lists" "$root/var/lib/postgresql"
mkdir -p "$root/var/lib/apt/lists/partial"
# The authorities that this machine trusts, for registries behind a proxy.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi

install -m 0755 "$node" "$root/usr/local/bin/node"
mkdir -p "$root/usr/local/lib/node_modules"
cp -a "$npm" "$root/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
