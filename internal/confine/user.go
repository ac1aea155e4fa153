package confine

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

const (
	// firstUID begins a range that neither distributions nor systemd, container managers or subuid(5) give to
	// anybody (systemd's UIDS-GIDS: container ranges end below 0x70000000). Process ids, which are added to
	// it, are below 2^22.
	firstUID = 0x70000000

	// Another is what a process adds to its pid to choose a user for the second program that it starts.
	Another = 1 << 22

	// smallUID begins what systemd's UIDS-GIDS has for services without accounts, smallUIDs many. It is for a
	// root whose user namespace does not reach firstUID, as in rootless containers.
	smallUID  = 61184
	smallUIDs = 65520 - smallUID

	// nobody is the last resort there.
	nobody = 65534
)

// User is whom a program runs as that root starts: somebody who owns nothing and is in no group, but for those
// that open the devices.
type User struct {
	ID     uint32
	Groups []uint32
}

// ChooseUser returns the user for a program that the process pid starts and that opens the devices; see Another. It is nil
// where none is needed, because the caller is not root, or possible, because its user namespace knows no other
// user. As no two processes have one pid, no two programs that run at the same time share a user.
func ChooseUser(pid int, devices ...string) (*User, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return nil, fmt.Errorf("reading which users there are: %w", err)
	}
	gids, err := os.ReadFile("/proc/self/gid_map")
	if err != nil {
		return nil, fmt.Errorf("reading which groups there are: %w", err)
	}
	id, ok := chooseUser(string(uids), string(gids), uint32(pid), runsSomething)
	if !ok {
		return nil, nil
	}
	u := &User{ID: id}
	for _, device := range devices {
		if group, ok := deviceGroup(device); ok && !slices.Contains(u.Groups, group) {
			u.Groups = append(u.Groups, group)
		}
	}
	return u, nil
}

// chooseUser takes the content of uid_map and gid_map (user_namespaces(7)). Where there are few ids, it takes
// one that runs nothing, by the number of the process and then the next ones. Should all do, they share one:
// what keeps two programs of one user apart is then their namespaces.
func chooseUser(uids, gids string, pid uint32, busy func(uint32) bool) (id uint32, ok bool) {
	exists := func(id uint32) bool { return mapped(uids, id) && mapped(gids, id) }
	if exists(firstUID + pid) {
		return firstUID + pid, true
	}
	for i := range uint32(smallUIDs) {
		id := smallUID + (pid+i)%smallUIDs
		if exists(id) && !busy(id) {
			return id, true
		}
	}
	if exists(nobody) {
		return nobody, true
	}
	return 0, false
}

func mapped(idMap string, id uint32) bool {
	lines := bufio.NewScanner(strings.NewReader(idMap))
	for lines.Scan() {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &count); err != nil {
			return false
		}
		if uint64(id) >= inside && uint64(id) < inside+count {
			return true
		}
	}
	return false
}

// runsSomething tells whether a process of the user is to be seen.
func runsSomething(id uint32) bool {
	entries, _ := os.ReadDir("/proc") // without it, nobody is to be seen
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		info, err := e.Info()
		if err != nil {
			return false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		return ok && st.Uid == id
	})
}

// deviceGroup returns the group that may use the device, unless that is root's or everybody may.
func deviceGroup(device string) (uint32, bool) {
	info, err := os.Stat(device)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st.Gid, ok && st.Gid != 0 && info.Mode().Perm()&0o060 == 0o060
}

// RootOnly tells whether no unprivileged user can be made to open the device.
func RootOnly(device string) bool {
	info, err := os.Stat(device)
	if err != nil {
		return false
	}
	_, byGroup := deviceGroup(device)
	return !byGroup && info.Mode().Perm()&0o006 != 0o006
}
