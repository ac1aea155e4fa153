package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTimeZoneOfTheHost(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"usr/share/zoneinfo/Europe/Stockholm": "TZif1", "usr/share/zoneinfo/Asia/Tokyo": "TZif2",
		"usr/share/zoneinfo/tzdata.zi": "# text", "secret": "TZif?",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(tz, name, data string) {
		t.Helper()
		if got := timeZone(root, tz); got.Name != name || string(got.Data) != data {
			t.Errorf("TZ=%q: %q with %q, want %q with %q", tz, got.Name, got.Data, name, data)
		}
	}
	check("", "", "")
	check("Asia/Tokyo", "Asia/Tokyo", "TZif2")
	check(":/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo", "TZif2")
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(root, "etc/localtime")
	if err := os.Symlink("../usr/share/zoneinfo/Europe/Stockholm", local); err != nil {
		t.Fatal(err)
	}
	for _, tz := range []string{"", "CET-1CEST", "No/Such", "tzdata.zi", "../../../secret"} {
		check(tz, "Europe/Stockholm", "TZif1")
	}
	// A file has no name of its own.
	if err := os.Remove(local); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(local, []byte("TZif3"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("", "", "TZif3")
	if err := os.WriteFile(filepath.Join(root, "etc/timezone"), []byte("Asia/Tokyo\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("", "Asia/Tokyo", "TZif3")
}
