package trust

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Owners are the users whose files count.
type Owners struct {
	self  int
	uids  []int
	group func(gid int) bool // whether nobody but self is in the group
}

// Caller is who runs this process, and root, who can do everything anyway. For
// root, it is also the user whose sudo made the caller root, as getenv tells: the
// directory in which they work is theirs.
func Caller(getenv func(string) string) Owners {
	o := Owners{self: os.Geteuid(), group: ownGroup}
	o.uids = []int{o.self, 0}
	if uid, err := strconv.Atoi(getenv("SUDO_UID")); err == nil && o.self == 0 {
		o.uids = append(o.uids, uid)
	}
	return o
}

// Error is why something does not count. It is a sentence about Path, and says
// what to do.
type Error struct{ Path, Reason string }

func (e *Error) Error() string { return e.Path + " " + e.Reason }

func (o Owners) owner(path string, st *unix.Stat_t) error {
	if slices.Contains(o.uids, int(st.Uid)) {
		return nil
	}
	return &Error{path, fmt.Sprintf("belongs to %s, and not to you", userName(int(st.Uid)))}
}

// mode refuses what others may write. In a directory with the sticky bit, they
// cannot take away what is not theirs.
func (o Owners) mode(path string, st *unix.Stat_t) error {
	sticky := st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0
	switch {
	case sticky:
		return nil
	case st.Mode&unix.S_IWOTH != 0:
		return &Error{path, fmt.Sprintf("can be written by everybody: chmod o-w %s makes it yours alone", path)}
	case st.Mode&unix.S_IWGRP != 0 && !o.group(int(st.Gid)):
		return &Error{path, fmt.Sprintf("can be written by the group %s: chmod g-w %s makes it yours alone", groupName(int(st.Gid)), path)}
	}
	return nil
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("the user %d", uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// ownGroup tells whether a group is the caller's alone, as distributions give one
// to each user: what such a group may write is no wider open for it. A group of
// which that cannot be found out is not.
func ownGroup(gid int) bool {
	if gid != os.Getegid() {
		return false
	}
	self, err := user.Current()
	if err != nil {
		return false
	}
	groups, err := os.Open("/etc/group")
	if err != nil {
		return false
	}
	defer groups.Close()
	users, err := os.Open("/etc/passwd")
	if err != nil {
		return false
	}
	defer users.Close()
	return aloneIn(gid, self.Username, groups, users)
}

// aloneIn reads group(5) and passwd(5).
func aloneIn(gid int, name string, groups, users io.Reader) bool {
	id, found := strconv.Itoa(gid), false
	for lines := bufio.NewScanner(groups); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 4 || fields[2] != id {
			continue
		}
		found = true
		if fields[3] != "" && fields[3] != name {
			return false
		}
	}
	for lines := bufio.NewScanner(users); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) > 3 && fields[3] == id && fields[0] != name {
			return false
		}
	}
	return found
}
