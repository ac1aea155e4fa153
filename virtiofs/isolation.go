package virtiofs

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"syscall"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// overflowID is nobody: whose files belong to users that the guest has no business with. It is the kernel's
// own choice for ids that a user namespace does not map.
const overflowID = 65534

// isolation is one way to keep a virtiofsd that has been taken over by its guest from the rest of the host.
// No way ever gives it more power over files than the host user has to whom the guest's files belong.
type isolation struct {
	name string
	args []string
	// uid and gid are those of the host user as virtiofsd sees them, and groups its further groups.
	uid, gid int
	groups   []int
	// keepGroups keeps virtiofsd from giving up the groups, which it does where it could take others.
	keepGroups bool
	attr       *syscall.SysProcAttr
	// pinned says that virtiofsd has made the directory its root by the time that it is ready.
	pinned bool
	// alone says that it can serve a single file, for which it takes a mount namespace from the start.
	alone bool
	// weak says that nothing but virtiofsd itself keeps it to the directory.
	weak bool
}

// isolations returns the ways to run virtiofsd for a caller with the effective user id euid, the safest first.
func isolations(euid int, c ServerConfig) []isolation {
	all := []isolation{ownNamespace(euid, c)}
	if euid == 0 && len(c.HostGroups) > 0 {
		// In a container, root may have no power over all of the groups.
		bare := c
		bare.HostGroups = nil
		fewer := ownNamespace(euid, bare)
		fewer.name += " without further groups"
		all = append(all, fewer)
	}
	switch {
	case euid != 0:
		all = append(all, helperNamespace(c), unconfined(c, nil))
	case c.HostUID == 0:
		all = append(all, rootSandbox("namespace"), rootSandbox("chroot"))
	default:
		// Root can still become that user, which is better than serving files with root's power.
		user := &syscall.Credential{Uid: uint32(c.HostUID), Gid: uint32(c.HostGID)}
		for _, g := range c.HostGroups {
			user.Groups = append(user.Groups, uint32(g))
		}
		all = append(all, unconfined(c, user))
	}
	return all
}

// ownNamespace starts virtiofsd as root of a user namespace that holds a single user with its groups. It sees no
// file system but the share (pivot_root), no network and no other process, its capabilities end at the namespace's
// edge, and, being the first process of a process namespace, it takes its own children with it when it is killed.
//
// The namespace is made here and not by virtiofsd, because virtiofsd makes one only when it is not root and
// needs newuidmap for it, and because as root of the namespace it gives up the capabilities it has no use for.
func ownNamespace(euid int, c ServerConfig) isolation {
	i := isolation{
		name:   "user namespace",
		pinned: true,
		alone:  true,
		args:   []string{"--sandbox=namespace"},
		attr: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: c.HostUID, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: c.HostGID, Size: 1}},
		},
	}
	if euid != 0 {
		// The groups of an ordinary user cannot be dropped, nor need they: they are the user's own. Nor can they be
		// given numbers in the namespace.
		i.attr.Credential = &syscall.Credential{NoSetGroups: true}
		i.groups = unmappedGroups(c)
		return i
	}
	i.attr.Credential, i.attr.GidMappingsEnableSetgroups = &syscall.Credential{}, true // root's own are dropped
	for n, group := range c.HostGroups {
		i.attr.GidMappings = append(i.attr.GidMappings, syscall.SysProcIDMap{ContainerID: n + 1, HostID: group, Size: 1})
		i.attr.Credential.Groups = append(i.attr.Credential.Groups, uint32(n+1))
		i.groups = append(i.groups, n+1)
		i.keepGroups = true
	}
	return i
}

// unmappedGroups is how the user's further groups look in a namespace where they have no number: like all others.
// The guest is then told that each group is its user's. Whether that is so is decided on the host, and a file that
// only others than its group may use is the price.
func unmappedGroups(c ServerConfig) []int {
	if len(c.HostGroups) == 0 {
		return nil
	}
	return []int{overflowID}
}

// helperNamespace lets virtiofsd make its user namespace. Where AppArmor reserves namespaces for known
// programs (Ubuntu), the distribution's virtiofsd is one of those and this program is not.
func helperNamespace(c ServerConfig) isolation {
	return isolation{
		name:   "user namespace made by virtiofsd",
		pinned: true,
		groups: unmappedGroups(c),
		args: []string{
			"--sandbox=namespace",
			fmt.Sprintf("--uid-map=:0:%d:1:", c.HostUID),
			fmt.Sprintf("--gid-map=:0:%d:1:", c.HostGID),
		},
		attr: &syscall.SysProcAttr{},
	}
}

// rootSandbox is for root where user namespaces are closed, as in many containers. Without its capabilities
// root is an ordinary user that owns root's files: measured with them, the guest's root could write other
// users' files and leave device nodes on the host.
func rootSandbox(mode string) isolation {
	return isolation{
		name:   mode + " without capabilities",
		pinned: true,
		alone:  mode == "namespace", // which takes the same power
		args: []string{
			"--sandbox=" + mode,
			"--modcaps=-chown:-dac_override:-fowner:-fsetid:-mknod:-setfcap:-setgid:-setuid",
		},
		attr: &syscall.SysProcAttr{},
	}
}

// unconfined relies on virtiofsd itself and its seccomp filter. It follows the directory's path when the guest
// mounts the share. Credential may be nil.
func unconfined(c ServerConfig, credential *syscall.Credential) isolation {
	return isolation{
		name: "none",
		weak: true,
		args: []string{"--sandbox=none"},
		uid:  c.HostUID, gid: c.HostGID, groups: c.HostGroups,
		attr: &syscall.SysProcAttr{Credential: credential},
	}
}

// served is the directory that virtiofsd is told of: of a file, the one in which it sees nothing else.
func served(dir *hostdir.Dir) *hostdir.Dir {
	if dir.IsFile() {
		return dir.In()
	}
	return dir
}

// arguments returns virtiofsd's command line for a listening socket at descriptor fd.
func arguments(c ServerConfig, i isolation, fd int, openFiles uint64) []string {
	args := []string{
		"--fd=" + strconv.Itoa(fd),
		"--shared-dir=" + served(c.Directory).Path(),
		// A system call that virtiofsd has no use for ends it: the guest hangs, but does not get out.
		"--seccomp=kill",
		// File handles would save descriptors, but take a capability over the whole host (CAP_DAC_READ_SEARCH).
		"--inode-file-handles=never",
		// "Ready" is reported at this level, and few other lines.
		"--log-level=info",
		// The default asks for a million and complains where that is not allowed.
		"--rlimit-nofile=" + strconv.FormatUint(openFiles, 10),
		// What a restored guest remembers may be gone: it then gets an error for that file, until it has
		// looked the name up anew. The default would be that it cannot be restored at all.
		"--migration-on-error=guest-error",
		// Not --writeback: the host would see the guest's writes late. Not --xattr: it costs a round trip for
		// each write, and would let the guest set security.* attributes on the host.
	}
	args = append(args, caching(c)...)
	if c.ReadOnly {
		args = append(args, "--readonly")
	}
	args = append(args, i.args...)
	args = append(args, translation("--translate-uid=", c.GuestUID, i.uid, nil)...)
	return append(args, translation("--translate-gid=", c.GuestGID, i.gid, i.groups)...)
}

// caching returns the flags that say what the guest may remember.
func caching(c ServerConfig) []string {
	if c.Lower {
		// An overlay that finds that the host has put another file in the place of one that it knows says ESTALE of
		// that name, and goes on doing so. Nor does it go into what is announced as another file system.
		return []string{"--cache=always"}
	}
	return []string{
		// The guest asks again at each open, and for attributes after a second. "always" would be faster and
		// show a guest files that the host has replaced. "never" forbids mmap, on which git and Go rely, and with
		// --allow-mmap it saves the commits of two guests in one git repository (50 of 50, else 41), but not
		// those of two in one SQLite database (98 of 106, as locks stay each guest's own), and reading and
		// listing take 3 to 100 times as long. "metadata" saves neither.
		"--cache=auto",
		// Different file systems under the share have equal inode numbers; tar, rsync and find -xdev must see
		// where one ends.
		"--announce-submounts",
	}
}

// translation makes the flags for user or group ids. Whoever writes in the guest writes as the one host id:
// other ids would need privileges, and without the mapping chown, tar and package managers run by the guest's
// root fail. In the other direction the host id is the one guest id, as are the host user's further groups: the
// guest's kernel looks at the mode before virtiofsd is asked, and would find that the group's permissions are not
// for the guest's user. Everybody else is nobody, since equal numbers on both sides mean different people.
func translation(flag string, guest, host int, further []int) []string {
	const count = math.MaxUint32 // the last id is no id (chown(2) takes it for "unchanged")
	args := []string{
		fmt.Sprintf("%ssquash-guest:0:%d:%d", flag, host, uint32(count)),
		fmt.Sprintf("%shost:%d:%d:1", flag, host, guest),
	}
	next := 0 // the first id that has no flag yet
	for _, id := range slices.Compact(slices.Sorted(slices.Values(append([]int{host}, further...)))) {
		if id > next {
			args = append(args, fmt.Sprintf("%ssquash-host:%d:%d:%d", flag, next, overflowID, id-next))
		}
		if id != host {
			args = append(args, fmt.Sprintf("%ssquash-host:%d:%d:1", flag, id, guest))
		}
		next = id + 1
	}
	return append(args, fmt.Sprintf("%ssquash-host:%d:%d:%d", flag, next, overflowID, count-next))
}
