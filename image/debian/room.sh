# Furnishes the room and runs a command in it: SHOWN... -- COMMAND...
# It starts in the room's directory, as root of namespaces that show all of this machine.
mount --make-rprivate /
mount -c -t tmpfs -o mode=755,size=16m room root
cd -P root # by the way that we came; the names above may be closed to us
mkdir dev etc old proc root run tmp var
ln -s ../tmp var/tmp
# Packages are written to the disk with care for a loss of power, which takes most of the time and helps nobody here: an
# overlay can leave that out.
temp=$(mktemp -d ../tmp/XXXXXX)
mkdir -m 1777 $temp/upper $temp/work
if ! mount -c -t overlay -o volatile,lowerdir=../given,upperdir=$temp/upper,workdir=$temp/work room tmp 2>/dev/null; then
	mount -c --bind $temp/upper tmp
	cp ../given/* tmp
fi
mount -c -t proc proc proc
ln -s /proc/self/fd dev/fd
mkdir -p dev/pts dev/shm etc/apt/apt.conf.d
echo 'root:x:0:0::/root:/bin/sh
_apt:x:42:65534::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin' >etc/passwd
echo 'root:x:0:
tty:x:5:
nogroup:x:65534:' >etc/group
echo sandbox >etc/hostname
while [ "$1" != -- ]; do
	mkdir -p ".${1%/*}"
	if [ "$1" = /etc/resolv.conf ]; then
		cat "$1" >".$1" || true # often a link into /run, and absent where nobody resolves names
	elif [ -L "$1" ]; then
		ln -s "$(readlink "$1")" ".$1"
	elif [ -d "$1" ]; then
		mkdir -p ".$1"
		mount -c --rbind "$1" ".$1"
	elif [ -e "$1" ]; then
		: >".$1"
		mount -c --bind "$1" ".$1"
	fi
	shift
done
shift
pivot_root . old
cd /
umount -l old
rmdir old
unset OLDPWD
exec 9<&0
"$@" 9<&- </dev/null &
command=$!
# Standard input ends with whoever wanted the room.
(read -r _ <&9 || kill -KILL $command) &
wait $command
