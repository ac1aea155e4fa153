package virtiofs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

func TestParseShare(t *testing.T) {
	t.Setenv("HOME", "/home/user")
	for _, test := range []struct {
		spec string
		want Share
	}{
		{"/no/such", Share{Source: "/no/such", Target: "such"}},
		{".", Share{Source: "/no/project", Target: "project"}},
		{"..", Share{Source: "/no", Target: "no"}},
		{"sub/dir/", Share{Source: "/no/project/sub/dir", Target: "dir"}},
		{".:ro", Share{Source: "/no/project", Target: "project", ReadOnly: true}},
		{".:rw", Share{Source: "/no/project", Target: "project"}},
		{".:work", Share{Source: "/no/project", Target: "work"}},
		{".:work:ro", Share{Source: "/no/project", Target: "work", ReadOnly: true}},
		{".:work:rw", Share{Source: "/no/project", Target: "work"}},
		{".:./ro", Share{Source: "/no/project", Target: "ro"}},
		{".:./ro:ro", Share{Source: "/no/project", Target: "ro", ReadOnly: true}},
		{".:ro:ro", Share{Source: "/no/project", Target: "ro", ReadOnly: true}},
		{".:/srv/../mnt/x/", Share{Source: "/no/project", Target: "/mnt/x"}},
		{".:~/a/b", Share{Source: "/no/project", Target: "a/b"}},
		{".:a/../b", Share{Source: "/no/project", Target: "b"}},
		{"~/src", Share{Source: "/home/user/src", Target: "src"}},
		{"~user/src", Share{Source: "/no/project/~user/src", Target: "src"}},
		{`/no/a\:b`, Share{Source: "/no/a:b", Target: "a:b"}},
		{`/no/a\\b\c:d\:e`, Share{Source: `/no/a\b\c`, Target: "d:e"}},
		{`/no/end\`, Share{Source: `/no/end\`, Target: `end\`}},
		{"/no/größe und leer", Share{Source: "/no/größe und leer", Target: "größe und leer"}},
		{".:cow", Share{Source: "/no/project", Target: "project", ReadOnly: true, CopyOnWrite: true}},
		{".:work:rw,allow=.husky/**,allow=**/Make*", Share{Source: "/no/project", Target: "work", Rules: rules.Choice{Allow: []string{".husky/**", "**/Make*"}}}},
		{".:refuse=**/AGENTS.md,hide=private/", Share{Source: "/no/project", Target: "project", Rules: rules.Choice{Refuse: []string{"**/AGENTS.md"}, Hide: []string{"private/"}}}},
		{`.:ro,allow=a\,b,hide=c\*\\\\d\:e`, Share{Source: "/no/project", Target: "project", ReadOnly: true, Rules: rules.Choice{Allow: []string{`a\,b`}, Hide: []string{`c\*\\d:e`}}}},
		{".:rules=none", Share{Source: "/no/project", Target: "project", Rules: rules.Choice{None: true}}},
		{".:quota=5G", Share{Source: "/no/project", Target: "project", Quota: 5 << 30}},
		{".:work:rw,quota=1536m", Share{Source: "/no/project", Target: "work", Quota: 1536 << 20}},
		{".:watch", Share{Source: "/no/project", Target: "project", Watch: true}},
		{".:./watch:watch,quota=1M", Share{Source: "/no/project", Target: "watch", Watch: true, Quota: 1 << 20}},
		{".:same-path,ro", Share{Source: "/no/project", Target: "/no/project", ReadOnly: true}},
		{".:./same-path", Share{Source: "/no/project", Target: "same-path"}},
		{".:same-path,worktree=fix,worktree=more", Share{Source: "/no/project", Target: "/no/project", Rules: rules.Choice{Worktrees: []string{"fix", "more"}}}},
		{".:clone", Share{Source: "/no/project", Target: "project", ReadOnly: true, Clone: CloneHead}},
		{".:./cow:ro", Share{Source: "/no/project", Target: "cow", ReadOnly: true}},
		{"/:host:ro", Share{Source: "/", Target: "host", ReadOnly: true}},
	} {
		got, err := ParseShare(test.spec, "/no/project")
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("ParseShare(%q) = %+v, %v; want %+v", test.spec, got, err, test.want)
			continue
		}
		if again, err := ParseShare(got.String(), "/elsewhere"); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("ParseShare(%q) = %+v, %v; want %+v again", got.String(), again, err, got)
		}
	}
}

func TestAllowOptionIsForThatPathOnly(t *testing.T) {
	for _, name := range []string{".husky", "a,b", "a:b", "a*b", "a?b", "a[b]c", `a\b`, `a\,b`, `x\`, "a/b, c/**"} {
		share, err := ParseShare(".:"+AllowOption(name), "/no/project")
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		share.Rules.Hide = []string{"**"}
		set, err := rules.New(share.Rules)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		for _, path := range []string{name, "a", "b", "aXb", "axb", `a\`, "c"} {
			if v := set.Judge(rules.Access{Operation: rules.Read, Path: path}); v.Refused != (path != name) {
				t.Errorf("%s: reading %q is refused: %v", AllowOption(name), path, v.Refused)
			}
		}
	}
}

func TestParseShareTellsWhereTheMistakeIs(t *testing.T) {
	for spec, want := range map[string]string{
		"":                          "at character 1, the directory of the host is empty",
		":x":                        "at character 1, the directory of the host is empty",
		"a:":                        "at character 3, the path in the guest is empty",
		"größe::ro":                 "at character 7, the path in the guest is empty",
		"a:b:r0":                    `at character 5, "r0" is not an option`,
		"a:b:ro,cow":                "ro and cow exclude each other",
		"a:clone,cow":               "clone and cow exclude each other",
		"a:clone,hide=x":            "has no rules",
		"a:ro,watch":                "only where they may write",
		"a:watch,cow":               "only where they may write",
		"a:b:watch,clone":           "only where they may write",
		"a:b:same-path":             "at character 3, a path in the guest is written, and same-path says",
		"a:b:allow=":                `"allow=" is not an option`,
		"a:rules=none,allow=.husky": "nothing that allow= could allow",
		"a:quota=lots":              `"quota=lots" must be a size`,
		"a:quota=1k":                `"quota=1k" must be a size of 1M at least`,
		"a:ro,quota=1G":             "leave out quota=",
		"a:allow=/x":                `the pattern "/x" is not valid`,
		"a:b:ro,hide=a/[":           `the pattern "a/[" is not valid`,
		"a:b:c:ro":                  "at character 5, there is one part too many",
		"a:b:c:d":                   "at character 5, there is one part too many",
		"a:../b":                    "at character 3, the path in the guest leaves the guest's home",
		"a:~/..":                    "at character 3, the path in the guest leaves the guest's home",
		"a:~":                       "at character 3, the path in the guest is its whole home",
		"a:.":                       "at character 3, the path in the guest is its whole home",
		"/":                         "/ has no name of its own",
		"a\x00b":                    "UTF-8",
		"\xff":                      "UTF-8",
		"C:\\x:work:ro":             `at character 6, there is one part too many`,
	} {
		_, err := ParseShare(spec, "/no/project")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), specExample) {
			t.Errorf("ParseShare(%q): %v; want %q and the example", spec, err, want)
		}
	}
}

func TestParseShareResolvesLinksButKeepsTheirName(t *testing.T) {
	dir := resolvedTempDir(t)
	mkdir(t, dir, "real")
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	want := Share{Source: filepath.Join(dir, "real"), Target: "link"}
	if got, err := ParseShare("link", dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ParseShare = %+v, %v; want %+v", got, err, want)
	}
}

func TestOwner(t *testing.T) {
	path := resolvedTempDir(t)
	dir := openDir(t, path)
	if uid, gid, _, err := Owner(dir); err != nil || uid != os.Geteuid() || gid != os.Getegid() {
		t.Errorf("of one's own directory: %d, %d, %v", uid, gid, err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, 1234, 5678); err != nil {
		t.Fatal(err)
	}
	if uid, gid, groups, err := Owner(dir); err != nil || uid != 1234 || gid != 5678 || len(groups) != 0 {
		t.Errorf("of another's directory, for root: %d, %d, %v, %v", uid, gid, groups, err)
	}
}

func FuzzParseShare(f *testing.F) {
	for _, spec := range []string{".", "a:b:ro", `a\:b\\:c`, "~:x", "/:/", "::::"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		share, err := ParseShare(spec, "/no/such")
		if err != nil {
			return
		}
		if again, err := ParseShare(share.String(), "/no/such"); err != nil || !reflect.DeepEqual(again, share) {
			t.Errorf("%q gives %+v, whose specification %q gives %+v, %v", spec, share, share.String(), again, err)
		}
	})
}

func resolvedTempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func mkdir(t *testing.T, elements ...string) string {
	t.Helper()
	dir := filepath.Join(elements...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
