#!/bin/sh
# Runs once inside the lab's base system: the account, ssh, and what a container should not do.
set -eu
ln -sf /usr/share/zoneinfo/UTC /etc/localtime
echo 'LANG=C.UTF-8' > /etc/default/locale
getent group render > /dev/null || groupadd --system render
getent group video > /dev/null || groupadd --system video
userdel --remove ubuntu 2> /dev/null || true
useradd --create-home --uid 1000 --shell /bin/bash strix
printf 'strix ALL=(ALL) NOPASSWD: ALL\n' > /etc/sudoers.d/strix
chmod 440 /etc/sudoers.d/strix
install -d -m 700 -o strix -g strix /home/strix/.ssh
ssh-keygen -A > /dev/null
cat > /etc/fstab <<'FSTAB'
# /etc/fstab: static file system information.
# <file system> <mount point> <type> <options> <dump> <pass>
FSTAB
# They would take apt's lock or write on their own while tests compare the box with itself.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer man-db.timer motd-news.timer logrotate.timer systemd-timesyncd.service \
    getty@tty1.service console-getty.service; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
# Boxes live for minutes: whether their packages would outlive a power cut of this machine is no
# matter, and dpkg flushes each file of each package.
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/lab
mkdir -p /var/log/journal
apt-get clean
