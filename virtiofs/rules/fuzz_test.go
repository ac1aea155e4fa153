package rules

import (
	"bytes"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// names that rules are about, or nearly, from which paths are made.
var names = []string{
	".git", ".GIT", "git~1", ".g\u200cit", "x.git", "hooks", "Hooks", "pre-commit", "pre-commit.sample", "config", "config.lock",
	"modules", "refs", "logs", "HEAD", "commondir", "worktrees", "objects", ".husky", ".vscode", "tasks.json", ".claude",
	"settings.json", ".env", ".env.example", "a.pem", ".ssh", ".", "..", "", "src", "node_modules", "\xff", "a:b", ".git ", "x\x00",
}

// FuzzJudge looks for what must never be allowed by the built-in rules. A path is made of bytes that choose among names, and
// of a text of its own.
func FuzzJudge(f *testing.F) {
	f.Add([]byte{0, 5, 7}, "", uint8(Make), uint32(0), uint8(0), "")
	f.Add([]byte{12}, "/.git/hooks/x", uint8(Write), uint32(0), uint8(1), fresh)
	f.Add([]byte{0, 9}, "", uint8(Make), uint32(0), uint8(1), "[alias]\nx = !y\n")
	f.Add([]byte{18}, "", uint8(Make), uint32(fs.ModeDir), uint8(1), "")
	f.Add([]byte{}, ".ENV.local", uint8(Read), uint32(0), uint8(0), "")
	s, err := New(Choice{})
	if err != nil {
		f.Fatal(err)
	}
	none, err := New(Choice{None: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, chosen []byte, end string, operation uint8, mode uint32, flags uint8, text string) {
		var parts []string
		for _, i := range chosen {
			parts = append(parts, names[int(i)%len(names)])
		}
		a := Access{
			Operation: Operation(operation % 5), Path: strings.Join(parts, "/") + end, Type: fs.FileMode(mode),
			Moved: flags&1 != 0, Empty: flags&2 != 0, Link: text,
		}
		calls := 0
		if flags&4 == 0 {
			a.Content = func() ([]byte, error) { calls++; return []byte(text), nil }
		}
		v := s.Judge(a)
		if again := s.Judge(a); again != v {
			t.Fatalf("%+v is judged as %+v, and then as %+v", a, v, again)
		}
		if calls > 2 || calls > 0 && !s.WantsContent(a.Path) {
			t.Fatalf("%+v: its content is asked for %d times", a, calls)
		}
		if v.Refused != (v.Rule != "") || v.Refused != (v.Reason != "") || strings.ContainsFunc(v.Reason, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%+v: %+v", a, v)
		}
		if none.Judge(a).Refused {
			t.Fatalf("%+v is refused without rules", a)
		}
		if v.Refused {
			return
		}
		if a.Path != "." && !fs.ValidPath(strings.ToValidUTF8(a.Path, "x")) {
			t.Fatalf("the path %q is allowed", a.Path)
		}
		checkAllowed(t, a)
	})
}

// checkAllowed says in other words what the rules for Git are to achieve.
func checkAllowed(t *testing.T, a Access) {
	var parts []string
	if a.Path != "." {
		for name := range strings.SplitSeq(a.Path, "/") {
			parts = append(parts, fold(name))
		}
	}
	writes := a.Operation == Make || a.Operation == Write
	for i, name := range parts {
		within := parts[i+1:]
		switch {
		case name == ".git" && len(within) == 0 && writes && (!a.Type.IsDir() || a.Moved) && (a.Operation == Make || !a.Type.IsDir()):
			t.Fatalf("%+v makes something else than a directory", a)
		case name == ".husky" && a.Operation != Read, name == ".env" && i == len(parts)-1, name == ".ssh":
			t.Fatalf("%+v is allowed", a)
		case name != ".git" || len(within) == 0 || within[0] == "refs" || within[0] == "logs":
			continue
		}
		if writes && a.Moved && a.Type.IsDir() && a.Operation == Make || a.Operation == Remove && a.Type.IsDir() && !a.Empty {
			t.Fatalf("%+v moves a directory", a)
		}
		if hooks := slices.Index(within, "hooks"); hooks >= 0 && writes && !(hooks == len(within)-1 && a.Operation == Make && a.Type.IsDir()) &&
			!strings.HasSuffix(within[len(within)-1], ".sample") {
			t.Fatalf("%+v makes a hook", a)
		}
		if last := within[len(within)-1]; writes && (last == "config" || last == "config.worktree") && !a.Type.IsDir() {
			if a.Content == nil || a.Operation == Write {
				t.Fatalf("%+v makes settings of which nothing is known", a)
			}
			text, _ := a.Content()
			checkHarmless(t, text)
		}
	}
}

// checkHarmless compares what is allowed as settings with what Git reads.
func checkHarmless(t *testing.T, text []byte) {
	if judgeSettings(func() ([]byte, error) { return text, nil }, nil) != "" {
		return
	}
	for _, s := range gitList(t, text) {
		if !s.harmless() {
			t.Fatalf("%q is allowed, and Git reads %+v in it", text, s)
		}
	}
}

// gitList returns the settings in a text as the Git of this machine reads them.
func gitList(t *testing.T, text []byte) []setting {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	cmd := exec.Command(git, "config", "--file", "-", "--no-includes", "--list", "-z")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git does not read %q: %v", text, err)
	}
	var all []setting
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if entry == "" {
			continue
		}
		var s setting
		var name string
		name, s.value, s.set = strings.Cut(entry, "\n")
		first, last := strings.Index(name, "."), strings.LastIndex(name, ".")
		s.section, s.key = name[:first], name[last+1:]
		if first < last {
			s.quoted, s.subsection = true, name[first+1:last]
		}
		all = append(all, s)
	}
	return all
}

// FuzzGitConfig compares the reader of settings with Git's own.
func FuzzGitConfig(f *testing.F) {
	for _, text := range settingsTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseSettings([]byte(text))
		if err != nil {
			return
		}
		compareSettings(t, text, all)
		checkHarmless(t, []byte(text))
	})
}

// compareSettings compares what was read with what Git reads. Versions before 2.45 make each blank within a value a space.
func compareSettings(t *testing.T, text string, all []setting) {
	t.Helper()
	got, want := slices.Clone(all), gitList(t, []byte(text))
	for _, list := range [][]setting{got, want} {
		for i := range list {
			list[i].value = strings.ReplaceAll(list[i].value, "\t", " ")
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%q is read as\n%+v\nand by Git as\n%+v", text, got, want)
	}
}

// settingsTexts are ways to write settings, and tricks.
var settingsTexts = []string{
	fresh,
	"",
	"[core]hooksPath=x",
	"[CORE] HooksPath = x # comment",
	"[core]\nbare",
	"[core]bare # true\n[core] bare = false ; x",
	"[user]\n\tname = \"a # b\" c \\\n d\n",
	"[user]\nname = x \\\n[core]\nhooksPath = y\n",
	"[user]\nname = \"x \\\n y\"\n",
	"[user]\nname = x\\\n",
	"[user]\nname = x\\",
	"[user]\nname = a  b\t\tc  \nemail = \"  q \"  z",
	"[user]\nname = \\t\\n\\b\\\\\\\"x\n",
	"[remote \"a.b\"]\nurl = /x\n[remote \"A\\\"\\\\\\x\"]\n url=y",
	"[core \"\"]\nhooksPath = y\n",
	"[core\t \"x\"] hooksPath = y\n",
	"[branch \"x]\ny\"]\nremote = a\n",
	"#[core]\n;hooksPath = y\n [user] # [core]\n name = z",
	"[user]\nname = a;b\n[core]#x\nbare = true",
	"[a-b1]\nc-d2 = e\n",
	"[alias]\nx = !y\n",
	"[user]\nname\t = x\nemail =\n",
}

func TestSettingsAreReadAsByGit(t *testing.T) {
	for _, text := range settingsTexts {
		all, err := parseSettings([]byte(text))
		if err != nil {
			continue
		}
		compareSettings(t, text, all)
		checkHarmless(t, []byte(text))
	}
}

// Whatever Git takes for a dangerous setting is refused, however it is written.
func TestTricksOfSettings(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	s := set(t, Choice{})
	for _, text := range []string{
		"[core]hooksPath=x", "[CORE]\nHOOKSPATH = x", "[core]\n\thooksPath\t=\tx", "[core]\nhooksPath", "[user]\nname = \\\n\n[core]hooksPath=x",
		"[user]\nname = \"\\\"\"\n[core]\nhooksPath = x", "\ufeff[core]\nhooksPath = x", "[core]\r\nhooksPath = x\r\n", "[core] ; ]\nhooksPath=x",
		"[core] [user] name = x\n[core] fsmonitor = x", "[core]sshCommand = x", "[diff]external=x", "[diff \"x\"]textconv=y", "[merge \"x\"]driver=y",
		"[gpg]program=x", "[gpg \"ssh\"]program=x", "[credential]helper=x", "[include]path=x", "[includeIf \"onbranch:x\"]path=y", "[pager]log=x",
		"[sequence]editor=x", "[core]askPass=x", "[core]alternateRefsCommand=x", "[core]gitProxy=x", "[protocol \"ext\"]allow=always",
		"[uploadpack]packObjectsHook=x", "[url \"x\"]pushInsteadOf=y", "[interactive]diffFilter=x", "[difftool \"x\"]cmd=y", "[mergetool \"x\"]cmd=y",
		"[man \"x\"]cmd=y", "[browser \"x\"]cmd=y", "[web]browser=x", "[instaweb]httpd=x", "[sendemail]smtpServer=x", "[trailer \"x\"]command=y",
		"[remote \"x\"]receivepack=y", "[remote \"x\"]proxy=y", "[http]proxy=x", "[http]sslVerify=false", "[core]attributesFile=x", "[core]excludesFile=x",
		"[commit]template=x", "[filter.x]\nclean=y", "[core.x]\nhooksPath=y", "[lfs \"customtransfer.x\"]path=y", "[submodule \"x\"]update=!y",
		"[imap]tunnel=x", "[ssh]variant=x", "[init]templateDir=x", "[receive]procReceiveRefs=x", "[maintenance]repo=x", "[rebase]instructionFormat=x",
		"[core]worktree=..", "[extensions]partialClone=x", "[remote \"x\"]promisor=true", "[hook \"x\"]command=y", "[fsmonitor]allowRemote=true",
	} {
		if len(gitList(t, []byte(text))) == 0 {
			t.Errorf("%q: Git reads nothing", text)
		}
		v := s.Judge(Access{Operation: Make, Path: "x/.git/config", Moved: true, Content: content(text)})
		if v.Rule != gitConfig {
			t.Errorf("%q: %+v", text, v)
		}
	}
}
