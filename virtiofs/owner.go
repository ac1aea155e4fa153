package virtiofs

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// maxGroups is less than the ranges that a namespace's map of groups may have (340, user_namespaces(7)).
const maxGroups = 256

// Owner returns the ids of the host user and group to whom the guest's files in the directory should belong, and
// the user's further groups, for ServerConfig. For an ordinary user they are its own. For root they are those of the
// directory's owner, so that sharing somebody's directory with sudo leaves no files of root in it, and the guest can
// use what the owner can.
func Owner(dir *hostdir.Dir) (uid, gid int, groups []int, err error) {
	if euid := os.Geteuid(); euid != 0 {
		groups, err := os.Getgroups()
		return euid, os.Getegid(), without(groups, os.Getegid()), err
	}
	id, err := dir.Identity()
	if err != nil {
		return 0, 0, nil, fmt.Errorf("asking for the owner of the directory to share: %w", err)
	}
	uid, gid = int(id.UID), int(id.GID)
	if uid != 0 { // root's own files are open to it without groups
		groups, err = groupsOf(uid)
	}
	return uid, gid, without(groups, gid), err
}

// groupsOf returns the groups of a user of the host, none for one who has no entry in passwd.
func groupsOf(uid int) ([]int, error) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if _, ok := errors.AsType[user.UnknownUserIdError](err); ok {
		return nil, nil
	}
	var ids []string
	if err == nil {
		ids, err = u.GroupIds()
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the groups of user %d: %w", uid, err)
	}
	var groups []int
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			groups = append(groups, n)
		}
	}
	return groups, nil
}

func without(groups []int, gid int) []int {
	groups = slices.DeleteFunc(groups, func(g int) bool { return g == gid })
	return groups[:min(len(groups), maxGroups)]
}
