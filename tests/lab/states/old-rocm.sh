#!/bin/sh
# A box with ROCm 6.4.1, installed by hand the way AMD's older pages said, and 6.3.4 beside it by
# the names that end with the release (AMD: multi-version installation).
set -eu
mkdir -p /etc/apt/keyrings
curl -fsS http://radeon.lab/rocm/rocm.gpg.key | gpg --dearmor > /etc/apt/keyrings/rocm.gpg
signed='[arch=amd64 signed-by=/etc/apt/keyrings/rocm.gpg]'
for release in 6.4.1 6.3.4; do
    echo "deb $signed http://radeon.lab/rocm/apt/$release noble main"
done > /etc/apt/sources.list.d/rocm.list
# AMD's libdrm of that release, and a newer driver, which goes with several releases.
for release in 6.4.1 30.10.1; do
    echo "deb $signed http://radeon.lab/amdgpu/$release/ubuntu noble main"
done > /etc/apt/sources.list.d/amdgpu.list
printf 'Package: *\nPin: release o=repo.radeon.com\nPin-Priority: 600\n' > /etc/apt/preferences.d/rocm-pin-600
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends rocm rocm-libs rocm-hip-runtime6.3.4 \
    libdrm-amdgpu-dev amdgpu-dkms amdgpu-install
apt-mark hold rocm-libs
# One package that was removed but left its configuration.
apt-get remove -qy amdgpu-install
# apt-key's way of old: the key for every source. And a keyring with a key of somebody else's too.
cp /etc/apt/keyrings/rocm.gpg /etc/apt/trusted.gpg.d/rocm-keyring.gpg
gpg --dearmor < /usr/share/keyrings/lab-ubuntu.asc | cat /etc/apt/keyrings/rocm.gpg - \
    > /etc/apt/keyrings/team.gpg
# What AMD's post-installation page has one write; it names directories of that release alone.
printf '/opt/rocm-6.4.1/lib\n' > /etc/ld.so.conf.d/rocm.conf
# Something of another origin that must stay, and a hand-made leftover of an older release.
mkdir -p /opt/rocm-6.2.0/.info /opt/rocm-notes
echo 6.2.0 > /opt/rocm-6.2.0/.info/version
echo 'my notes' > /opt/rocm-notes/README
apt-get clean
