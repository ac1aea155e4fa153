package virtiofs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestServerHoldsWhatTheGuestRemembers(t *testing.T) {
	const files = 50
	uids := []int{os.Geteuid()}
	if uids[0] == 0 {
		uids = append(uids, nobody)
	}
	for _, uid := range uids {
		c := realConfig(t, uid)
		fill(t, c.Directory.Path(), uid)
		for i := range files {
			writeFile(t, filepath.Join(c.Directory.Path(), fmt.Sprint(i)), "text")
		}
		s, err := realDaemon(t).Start(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, s) })
		g := guest{connect(t, c.Socket), t}
		before, limit, err := s.OpenFiles()
		if err != nil || limit < files {
			t.Fatalf("%s: %d of %d files are open, %v", s.Isolation(), before, limit, err)
		}
		var nodes []uint64
		for i := range files {
			node, err := g.Lookup(1, fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, node)
		}
		if open, _, err := s.OpenFiles(); err != nil || open != before+files {
			t.Errorf("%s: %d files are open, want %d more than %d, %v", s.Isolation(), open, files, before, err)
		}
		for _, node := range nodes {
			if err := g.Forget(node); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := g.Lookup(1, "file"); err != nil { // by which the others were forgotten
			t.Fatal(err)
		}
		if open, _, err := s.OpenFiles(); err != nil || open > before+1 {
			t.Errorf("%s: %d files are open, want no more than %d, %v", s.Isolation(), open, before+1, err)
		}
	}
}
