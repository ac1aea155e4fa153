package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// sharing makes a sandbox that has the directory as a share.
func sharing(t *testing.T, h *Host, dir string) *Sandbox {
	t.Helper()
	share, err := virtiofs.Share{Source: dir, Target: "/home/agent/x"}.Admit(h.ShareRules())
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig("a")
	c.Shares = []virtiofs.Share{share}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkNow(t *testing.T, h *Host, s *Sandbox) error {
	t.Helper()
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	return h.checkShares(c)
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := hostdir.Resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestChangedShareIsRefusedUntilItIsAccepted(t *testing.T) {
	h := testHost(t)
	base := tempDir(t)
	dir := filepath.Join(base, "it's here")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := sharing(t, h, dir)
	if err := checkNow(t, h, s); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(dir, base+"/kept"), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	err := checkNow(t, h, s)
	if err == nil || !strings.Contains(err.Error(), "another directory now") || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[accept-share a "+base+"/it's here]") {
		t.Fatalf("got %v", err)
	}
	if _, err := s.AcceptShares([]string{base}, false); err == nil || !strings.Contains(err.Error(), "has no share of "+base) {
		t.Errorf("accepting what is no share: %v", err)
	}
	if _, err := s.AcceptShares([]string{dir}, false); err != nil {
		t.Fatal(err)
	}
	if err := checkNow(t, h, s); err != nil {
		t.Errorf("after it was accepted: %v", err)
	}
}

func TestAcceptedLinkIsJudgedByWhereItLeads(t *testing.T) {
	h := testHost(t)
	base := tempDir(t)
	dir := filepath.Join(base, "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := sharing(t, h, dir)
	if err := errors.Join(os.Remove(dir), os.Symlink("/etc", dir)); err != nil {
		t.Fatal(err)
	}
	if err := checkNow(t, h, s); err == nil || !strings.Contains(err.Error(), `symbolic link now, to "/etc"`) {
		t.Errorf("a link in its place: %v", err)
	}
	if _, err := s.AcceptShares([]string{dir}, false); err == nil || !strings.Contains(err.Error(), "configuration of the host") {
		t.Errorf("a link to /etc was accepted: %v", err)
	}
	accepted, err := s.AcceptShares([]string{dir}, true)
	if err != nil || accepted[0].Source != "/etc" || !accepted[0].AllowDangerous {
		t.Errorf("with permission: %+v, %v", accepted, err)
	}
	if err := checkNow(t, h, s); err != nil {
		t.Error(err)
	}
}

// What was allowed once is allowed for that directory, and for no other of the
// same sandbox.
func TestDangerousShareOfAnOlderVersionIsJudged(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.Shares = []virtiofs.Share{{Source: "/etc", Target: "/srv/etc"}}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkNow(t, h, s); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[accept-dangerous a /etc]") {
		t.Errorf("got %v", err)
	}
}

func TestShareWithoutARecordIsRecordedAtItsStart(t *testing.T) {
	h := testHost(t)
	dir := tempDir(t)
	c := testConfig("a")
	c.Shares = []virtiofs.Share{{Source: dir, Target: "/srv/x"}}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := s.RecordShares(c)
	if err != nil {
		t.Fatal(err)
	}
	c, err = s.Config()
	if err != nil || c.Shares[0].Directory == (hostdir.Identity{}) || !reflect.DeepEqual(c.Shares[0], recorded.Shares[0]) {
		t.Errorf("kept: %+v, %v", c.Shares, err)
	}
}

func TestChangeOfAShareIsToldWithItsRemedy(t *testing.T) {
	s := ServedShare{Source: "/src", Changed: "is not there any more"}
	file := ServedShare{Source: "/f", File: true, Changed: "is another file now"}
	if got := shareChanged("a", file); got != "/f is another file now, but the guest has the old one until it is started again: sandbox restart a" {
		t.Error(got)
	}
	if got := shareChanged("a", s); got != "/src is not there any more, but the guest has the old directory until it is started again: sandbox share accept a /src && sandbox restart a" {
		t.Error(got)
	}
}

func TestMissingShareCanBeDropped(t *testing.T) {
	h := testHost(t)
	dir := filepath.Join(tempDir(t), "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := sharing(t, h, dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	err := checkNow(t, h, s)
	want := []remedy.Remedy{{Do: remedy.DropShare, Args: []string{"a", "/home/agent/x"}}}
	if err == nil || !strings.Contains(err.Error(), dir+" to share does not exist") || !reflect.DeepEqual(remedy.Of(err), want) {
		t.Errorf("%v, %v; want %v", err, remedy.Of(err), want)
	}
}
