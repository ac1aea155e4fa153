package confine

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// ruleset is what Landlock restricts in a version of its interface: all that it knows there.
func ruleset(version int, network bool) ll.RulesetAttr {
	a := ll.RulesetAttr{HandledAccessFS: 1<<13 - 1} // up to AccessFSMakeSym
	for _, more := range []struct {
		since  int
		rights uint64
	}{{2, ll.AccessFSRefer}, {3, ll.AccessFSTruncate}, {5, ll.AccessFSIoctlDev}, {9, ll.AccessFSResolveUnix}} {
		if version >= more.since {
			a.HandledAccessFS |= more.rights
		}
	}
	if version >= 4 && !network {
		a.HandledAccessNet = ll.AccessNetBindTCP | ll.AccessNetConnectTCP
	}
	if version >= 10 && !network {
		a.HandledAccessNet |= ll.AccessNetBindUDP | ll.AccessNetConnectSendUDP
	}
	if version >= 6 {
		a.Scoped = ll.ScopeAbstractUnixSocket | ll.ScopeSignal
	}
	return a
}

// describe says in a few words what Landlock restricts.
func describe(version int, a ll.RulesetAttr) string {
	what := []string{"files"}
	if a.HandledAccessNet != 0 {
		what = append(what, "TCP")
	}
	if a.Scoped != 0 {
		what = append(what, "signals", "abstract sockets")
	}
	return fmt.Sprintf("version %d: %s", version, strings.Join(what, ", "))
}

// grant is what may be done with a file, or with what is in a directory.
type grant struct {
	path   string
	rights uint64
}

// grants are the exceptions from "nothing".
func (j job) grants() []grant {
	const see = ll.AccessFSReadFile | ll.AccessFSReadDir
	all := []grant{{"/", see}} // which holds nothing else
	if !j.Room.Namespaces {
		all = nil
		for _, path := range j.Room.Paths {
			all = append(all, grant{path, see})
		}
		for path := range j.Room.Links {
			all = append(all, grant{path, see})
		}
	}
	for _, path := range j.Room.Executes {
		all = append(all, grant{path, see | ll.AccessFSExecute})
	}
	for _, path := range j.Room.Devices {
		all = append(all, grant{path, ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev})
	}
	for i, f := range j.Files {
		path := "/proc/self/fd/" + strconv.Itoa(firstFile+i)
		switch f.Reopen {
		case Read:
			all = append(all, grant{path, ll.AccessFSReadFile})
		case ReadWrite:
			all = append(all, grant{path, ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate})
		}
	}
	return all
}

// restrictFiles puts Landlock around this thread. The library that we take the calls from
// (landlock-lsm/go-landlock) would restrict all threads of a program that goes on, and needs a /proc for that.
func (j job) restrictFiles(r *Report) error {
	version := landlockVersion()
	if version == 0 {
		r.lacks(WallLandlock, errors.New("the kernel has none, or it is switched off (lsm= on its command line)"))
		return nil
	}
	attr := ruleset(version, j.Room.Network)
	fd, err := ll.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return fmt.Errorf("making Landlock's rules: %w", err)
	}
	defer unix.Close(fd)
	for _, g := range j.grants() {
		if err := g.add(fd, attr.HandledAccessFS); err != nil {
			return fmt.Errorf("allowing %s by Landlock: %w", g.path, err)
		}
	}
	if err := ll.LandlockRestrictSelf(fd, 0); err != nil {
		return fmt.Errorf("restricting by Landlock: %w", err)
	}
	r.has(WallLandlock, describe(version, attr))
	return nil
}

// fileRights are those that make sense for what is no directory.
const fileRights = ll.AccessFSExecute | ll.AccessFSWriteFile | ll.AccessFSReadFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev

func (g grant) add(ruleset int, handled uint64) error {
	fd, err := unix.Open(g.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // and so nobody can do anything with it
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	rights := g.rights & handled
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	err = ll.LandlockAddPathBeneathRule(ruleset, &ll.PathBeneathAttr{AllowedAccess: rights, ParentFd: fd}, 0)
	if errors.Is(err, unix.EBADFD) {
		return nil // in no file system that can be mounted, such as a memfd: Landlock allows it to whom has it
	}
	return err
}
