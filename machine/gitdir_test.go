package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestRepositoriesThatAreNotShared(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", `git init -q app
git -C app -c user.email=a@b -c user.name=n commit -q --allow-empty -m one
git -C app worktree add -q ../fix
mkdir none fifo link odd
mkfifo fifo/.git
ln -s ../fix/.git link/.git
echo nothing >odd/.git`)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	share := func(name, target string) virtiofs.Share {
		return virtiofs.Share{Source: filepath.Join(top, name), Target: target}
	}
	same := func(name string) virtiofs.Share { return share(name, filepath.Join(top, name)) }
	git := filepath.Join(top, "app/.git")
	host := &Host{Dirs: layout.Dirs{State: filepath.Join(top, "state")}}
	cmd = exec.Command("sh", "-ec", `git -C app worktree add -q ../fix2; mkdir fake; cp fix/.git fake/.git; git -C app worktree add -q ../other`)
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cow := share("fix", "fix")
	cow.ReadOnly, cow.CopyOnWrite = true, true
	for name, tt := range map[string]struct {
		shares []virtiofs.Share
		want   string
	}{
		"a worktree":                  {[]virtiofs.Share{share("fix", "fix")}, "fix app/.git[fix]"},
		"where it is":                 {[]virtiofs.Share{same("fix")}, "fix app/.git[fix]"},
		"elsewhere":                   {[]virtiofs.Share{share("fix", "/srv/fix")}, "/srv/fix"},
		"two of one repository":       {[]virtiofs.Share{share("fix", "fix"), share("fix2", "fix2")}, "fix fix2 app/.git[fix fix2]"},
		"with the repository":         {[]virtiofs.Share{share("fix", "fix"), same("app")}, "fix app"},
		"with the repository's place": {[]virtiofs.Share{same("app/.git"), share("fix", "fix")}, "app/.git fix"},
		"copy-on-write":               {[]virtiofs.Share{cow}, "fix:cow app/.git:cow[fix]"},
		"one of each":                 {[]virtiofs.Share{cow, share("fix2", "fix2")}, "fix:cow /home/agent/fix2 app/.git:cow[fix]"},
		"one that lies":               {[]virtiofs.Share{share("fake", "fake")}, "/home/agent/fake"},
		"no worktree":                 {[]virtiofs.Share{share("none", "none"), share("app", "app")}, "/home/agent/none /home/agent/app"},
	} {
		var got []string
		for _, s := range host.withRepositories(tt.shares) {
			text := guestPath(s.Target, "/home/agent")
			if rel, ok := strings.CutPrefix(text, top+"/"); ok {
				text = rel
			}
			if s.CopyOnWrite {
				text += ":cow"
			}
			if len(s.Rules.Worktrees) > 0 {
				text += fmt.Sprint(s.Rules.Worktrees)
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		shares []virtiofs.Share
		want   []string
	}{
		"a repository":                {[]virtiofs.Share{share("app", "/home/agent/app")}, nil},
		"no repository":               {[]virtiofs.Share{share("none", "/n"), share("fifo", "/f"), share("link", "/l"), share("odd", "/o")}, nil},
		"a worktree":                  {[]virtiofs.Share{same("fix")}, []string{git}},
		"both in other places":        {[]virtiofs.Share{share("fix", "/fix"), share("app/.git", "/git")}, []string{git}},
		"the worktree elsewhere":      {[]virtiofs.Share{share("fix", "/fix"), same("app/.git")}, []string{git}},
		"both where they are":         {[]virtiofs.Share{same("fix"), same("app/.git")}, nil},
		"with the whole repository":   {[]virtiofs.Share{same("fix"), same("app")}, nil},
		"with the directory of both":  {[]virtiofs.Share{same("fix"), same(".")}, nil},
		"with another one's worktree": {[]virtiofs.Share{same("fix"), same("none")}, []string{git}},
	} {
		var got []string
		for _, far := range FarRepositories(tt.shares) {
			got = append(got, far.Directory)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q is not there, want %q", name, got, tt.want)
		}
	}
}

// shell runs a script in a directory, as somebody without settings of Git.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("install git to run this test")
	}
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.com",
		"GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.com", "GIT_ALLOW_PROTOCOL=file")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func TestASubmoduleBringsItsRepository(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shell(t, top, `git init -q origin; git -C origin commit -q --allow-empty -m one; git init -q app
git -C app submodule add -q ../origin lib; git -C app commit -q -m lib; git -C app worktree add -q ../fix; git -C fix submodule update -q --init
mkdir fake; echo "gitdir: $PWD/app/.git/modules/lib" >fake/.git
git init -q private; mkdir liar; echo "gitdir: $PWD/private/.git" >liar/.git`)
	host := &Host{Dirs: layout.Dirs{State: filepath.Join(top, "state")}}
	for name, want := range map[string]string{
		"app/lib": "app/lib app/.git/modules/lib", "fix/lib": "fix/lib app/.git/worktrees/fix/modules/lib", "fake": "", "liar": "", "origin": "",
	} {
		got := host.withRepositories([]virtiofs.Share{{Source: filepath.Join(top, name), Target: filepath.Base(name)}})
		if want == "" {
			if len(got) != 1 || got[0].Target != filepath.Base(name) {
				t.Errorf("%s: %+v", name, got)
			}
			continue
		}
		var paths []string
		for _, s := range got {
			rel, _ := filepath.Rel(top, s.Target)
			paths = append(paths, rel)
			if s.Source != s.Target || s.ReadOnly || s.Rules.None {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if strings.Join(paths, " ") != want || len(FarRepositories(got)) != 0 {
			t.Errorf("%s: %q is shared, want %q; far are %v", name, paths, want, FarRepositories(got))
		}
		if of := SubmoduleRepositories(got); len(of) != 1 || of[got[1].Source] != got[0].Source {
			t.Errorf("%s: repositories of submodules are %v", name, of)
		}
	}
}

// What a repository borrows comes with it, and nothing else that it names.
func TestBorrowedObjectsAreShared(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(top, "home")
	t.Setenv("HOME", home)
	shell(t, top, `mkdir -p home/.ssh/objects/pack home/.ssh/refs home/secret/pack home/secret/info; echo ref: refs/heads/x >home/.ssh/HEAD
for r in base private; do git init -q -b main $r; git -C $r commit -q --allow-empty -m $r; done
git clone -q --shared base nested; git -C nested commit -q --allow-empty -m nested
git clone -q --shared nested app; git -C app commit -q --allow-empty -m app; git -C app worktree add -q ../fix
git clone -q --shared nested relative; echo ../../../nested/.git/objects >relative/.git/objects/info/alternates
git clone -q --bare --shared nested bare.git
for n in "$PWD/home/.ssh/objects" "$PWD/home/secret" "$PWD/private/.git/objects" ../../../private/.git/objects "$PWD/private/.git" /etc / . "$PWD/link/objects" \
	'"../../../private/.git/objects"' '# '"$PWD/private/.git/objects"; do echo "$n"; done >names
ln -s private/.git link
git clone -q --no-local nested hostile; cp names hostile/.git/objects/info/alternates
git clone -q --no-local nested fifo; mkfifo fifo/.git/objects/info/alternates
git clone -q --no-local nested away; ln -s "$PWD/names" away/.git/objects/info/alternates
cp -a hostile linked; cp -a hostile packed; cp -a hostile whole
for r in linked packed whole; do ls -d "$PWD/private/.git/objects" >$r/.git/objects/info/alternates; done
ln -s ../../../../private/.git/refs/heads/loose linked/.git/refs/heads/theirs
git -C private pack-refs --all; ln -sf ../../private/.git/packed-refs packed/.git
rm -r whole/.git/refs; ln -s ../../private/.git/refs whole/.git; git -C private update-ref refs/heads/loose HEAD`)
	host := &Host{Dirs: layout.Dirs{State: filepath.Join(top, "state")}}
	share := func(name, target string) virtiofs.Share {
		return virtiofs.Share{Source: filepath.Join(top, name), Target: target}
	}
	cow := share("app", "/home/agent/app")
	cow.ReadOnly, cow.CopyOnWrite = true, true
	clone := share("app/.git", "/home/agent/app")
	clone.ReadOnly, clone.Clone = true, virtiofs.CloneHead
	relativeClone := share("relative/.git", "/home/agent/relative")
	relativeClone.ReadOnly, relativeClone.Clone = true, virtiofs.CloneHead
	loose, allowed, readOnly := share("app", "/home/agent/app"), share("app", "/home/agent/app"), share("app", "/home/agent/app")
	loose.Rules.None, allowed.Rules.Allow = true, []string{".git/"}
	readOnly.ReadOnly, readOnly.Rules.None = true, true
	shell(t, top, `cp -a bare.git bare`)
	const absolute = "TOP/nested/.git/objects TOP/base/.git/objects"
	for name, tt := range map[string]struct {
		shares []virtiofs.Share
		want   string
	}{
		"absolute":              {[]virtiofs.Share{share("app", "/home/agent/app")}, absolute},
		"copy-on-write":         {[]virtiofs.Share{cow}, absolute},
		"a clone":               {[]virtiofs.Share{clone}, absolute},
		"a bare repository":     {[]virtiofs.Share{share("bare.git", "/srv/bare.git")}, absolute},
		"a worktree":            {host.withRepositories([]virtiofs.Share{share("fix", "fix")}), absolute},
		"relative":              {[]virtiofs.Share{share("relative", "/home/agent/relative")}, "/home/agent/nested/.git/objects TOP/base/.git/objects"},
		"a relative clone":      {[]virtiofs.Share{relativeClone}, "/home/nested/.git/objects TOP/base/.git/objects"},
		"one that is there":     {[]virtiofs.Share{share("app", "/home/agent/app"), share("base", filepath.Join(top, "base"))}, "TOP/nested/.git/objects"},
		"two of the same":       {[]virtiofs.Share{share("app", "/home/agent/app"), share("bare.git", "/srv/bare.git")}, absolute},
		"elsewhere":             {[]virtiofs.Share{share("relative", "/srv/a")}, "/srv/nested/.git/objects TOP/base/.git/objects"},
		"one that has no place": {[]virtiofs.Share{share("relative", "/etc/x/relative")}, ""},
		"without rules":         {[]virtiofs.Share{loose}, ""},
		"not protected":         {[]virtiofs.Share{allowed}, ""},
		"an unknown repository": {[]virtiofs.Share{share("bare", "/srv/bare")}, ""},
		"read-only":             {[]virtiofs.Share{readOnly}, absolute},
		"a hostile one":         {[]virtiofs.Share{share("hostile", "/home/agent/hostile")}, ""},
		"a link to a branch":    {[]virtiofs.Share{share("linked", "/home/agent/linked")}, ""},
		"a link to branches":    {[]virtiofs.Share{share("whole", "/home/agent/whole")}, ""},
		"a link to packed ones": {[]virtiofs.Share{share("packed", "/home/agent/packed")}, ""},
		"a pipe":                {[]virtiofs.Share{share("fifo", "/home/agent/fifo")}, ""},
		"a link":                {[]virtiofs.Share{share("away", "/home/agent/away")}, ""},
		"no repository":         {[]virtiofs.Share{share("home", "/home/agent/home")}, ""},
	} {
		all := host.withBorrowed(t.Context(), tt.shares, "/home/agent")
		var got []string
		for _, s := range all[len(tt.shares):] {
			got = append(got, strings.ReplaceAll(s.Target, top, "TOP"))
			if !s.Objects || !s.ReadOnly || s.Directory.IsZero() {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q are shared, want %q", name, got, tt.want)
		}
		if again := host.withBorrowed(t.Context(), all, "/home/agent"); len(again) != len(all) {
			t.Errorf("%s: at a second time, %v are shared too", name, again[len(all):])
		}
		if err := checkClones(all); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkClones([]virtiofs.Share{clone}); err == nil || !strings.Contains(err.Error(), "repack -a -d") {
		t.Errorf("a clone that would lack objects: %v", err)
	}
	if got := len(BorrowedObjects([]virtiofs.Share{share("hostile", "/h")})); got == 0 || got > maxBorrowed {
		t.Errorf("%d directories are told", got)
	}
}

// What submodules borrow comes with the project in which they are, wherever their repositories are in it.
func TestWhatSubmodulesBorrowIsShared(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", filepath.Join(top, "home"))
	shell(t, top, `mkdir home
for r in inner lib private; do git init -q $r; git -C $r commit -q --allow-empty -m $r; done
git -C lib submodule add -q ../inner deep/inner; git -C lib commit -q -m inner
git init -q app; git -C app submodule add -q --reference ../lib -- ../lib third/lib
git -C app/third/lib submodule update -q --init --reference "$PWD/inner"; git -C app commit -q -m lib
git -C app worktree add -q ../fix; git -C fix submodule update -q --init --reference ../lib
git clone -q app hostile; cd hostile/.git; mkdir -p modules/a; cp -a HEAD refs objects modules/a; cp -a modules/a modules/b; cp -a modules/a modules/c
for m in a b c; do echo ../../../../../private/.git/objects >modules/$m/objects/info/alternates; done
rm -r modules/b/refs; ln -s ../../../../private/.git/refs modules/b; mkfifo modules/c/refs/heads/pipe; cp -a modules/c ../kept; rm -r modules/c; ln -s ../../../kept modules/c
ln -s ../../../private/.git modules/d; ln -s ../../../app/.git/worktrees modules/e; ln -s ../modules modules/f; mkfifo worktrees`)
	host := &Host{Dirs: layout.Dirs{State: filepath.Join(top, "state")}}
	share := func(name string, change func(*virtiofs.Share)) []virtiofs.Share {
		s := virtiofs.Share{Source: filepath.Join(top, name), Target: "/home/agent/x"}
		if change != nil {
			change(&s)
		}
		return []virtiofs.Share{s}
	}
	const lib, inner = "lib/.git/objects", "inner/.git/objects"
	for name, tt := range map[string]struct {
		shares []virtiofs.Share
		want   string
	}{
		"a project":      {share("app", nil), lib + " " + inner},
		"copy-on-write":  {share("app", func(s *virtiofs.Share) { s.ReadOnly, s.CopyOnWrite = true, true }), lib + " " + inner},
		"a worktree":     {host.withRepositories(share("fix", func(s *virtiofs.Share) { s.Target = s.Source })), lib + " " + inner},
		"a submodule":    {host.withRepositories(share("app/third/lib", func(s *virtiofs.Share) { s.Target = s.Source })), lib + " " + inner},
		"a clone":        {share("app/.git", func(s *virtiofs.Share) { s.ReadOnly, s.Clone = true, virtiofs.CloneHead }), ""},
		"without rules":  {share("app", func(s *virtiofs.Share) { s.Rules.None = true }), ""},
		"partly without": {share("app", func(s *virtiofs.Share) { s.Rules.Allow = []string{".git/modules/third/lib/modules/"} }), lib},
		"a hostile one":  {share("hostile", nil), ""},
	} {
		all := host.withBorrowed(t.Context(), tt.shares, "/home/agent")
		var got []string
		for _, s := range all[len(tt.shares):] {
			rel, _ := filepath.Rel(top, s.Target)
			got = append(got, rel)
			if s.Source != s.Target || !s.Objects || !s.ReadOnly {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q are shared, want %q", name, got, tt.want)
		}
	}
}

// Git ignores what is borrowed over more than that many repositories. Circles end.
func TestBorrowedObjectsEndWhereGitEnds(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shell(t, top, `git init -q r0; git -C r0 commit -q --allow-empty -m r0; last=r0
for r in r1 r2 r3 r4 r5 r6 r7; do git init -q $r; echo "$PWD/$last/.git/objects" >$r/.git/objects/info/alternates; git -C $r commit -q --allow-empty -m $r; last=$r; done
echo "$PWD/r7/.git/objects" >r0/.git/objects/info/alternates`)
	// r7 borrows of r6 at a depth of 0, and of r1 at 5.
	for name, found := range map[string]bool{"r1": true, "r0": false} {
		head, err := exec.Command("git", "-C", filepath.Join(top, name), "rev-parse", "HEAD").Output()
		if err != nil {
			t.Fatal(err)
		}
		err = exec.Command("git", "-C", filepath.Join(top, "r7"), "cat-file", "-e", strings.TrimSpace(string(head))).Run()
		if (err == nil) != found {
			t.Errorf("git finds the commit of %s: %v", name, err)
		}
	}
	all := BorrowedObjects([]virtiofs.Share{{Source: filepath.Join(top, "r7"), Target: "/srv/r7"}})
	if len(all) != maxAlternateDepth+1 || all[maxAlternateDepth].Directory != filepath.Join(top, "r1/.git/objects") {
		t.Errorf("it borrows of %v", all)
	}
}

func TestASandboxWithCommitsThatNobodyHasIsNotRemoved(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shell(t, top, `git init -q app; git -C app commit -q --allow-empty -m one; git clone -q app guest; git -C guest commit -q --allow-empty -m two`)
	head := func(name string) string {
		out, err := exec.Command("git", "-C", filepath.Join(top, name), "rev-parse", "HEAD").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	one, two := head("app"), head("guest")
	state := func(st State) {
		st.Status = StatusStopped
		s := &Sandbox{Name: "work", host: &Host{Dirs: layout.Dirs{State: top}}}
		if err := durable.WriteJSON(s.Files().Path(layout.StateFile), st); err != nil {
			t.Fatal(err)
		}
	}
	const target = "/home/agent/app"
	s := &Sandbox{Name: "work", host: &Host{Dirs: layout.Dirs{State: top, Runtime: top}}}
	if err := os.MkdirAll(s.Files().Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	c := Config{Name: "work", Access: Access{Shares: []virtiofs.Share{{Source: filepath.Join(top, "app/.git"), Target: target, Clone: virtiofs.CloneHead}}}}
	if err := durable.WriteJSON(s.Files().Path(layout.ConfigFile), c); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		clones map[string][]string
		want   string
	}{
		"all are here":   {map[string][]string{target: {one, one}}, ""},
		"no commits":     {map[string][]string{target: nil}, ""},
		"one is not":     {map[string][]string{target: {one, two}}, "has not got all commits"},
		"a guest's lies": {map[string][]string{target: {"--batch", "HEAD", "\x1b[2J"}}, "has not got all commits"},
		"not known":      {nil, "it is not known"},
	} {
		state(State{Started: time.Now(), Clones: tt.clones})
		err := s.checkFetched(t.Context())
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	state(State{Started: time.Now(), Clones: map[string][]string{target: {two}}})
	if err := s.Remove(t.Context(), false); err == nil {
		t.Error("it was removed")
	}
	shell(t, top, "git -C app fetch -q ../guest")
	if err := s.Remove(t.Context(), false); err != nil {
		t.Errorf("after a fetch: %v", err)
	}
}
