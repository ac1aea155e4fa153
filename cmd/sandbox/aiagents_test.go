package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sourcery-zone/sandbox/network/login"
)

// aiAgentsVariable names the image of TestAIAgents.
const aiAgentsVariable = "SANDBOX_TEST_AI_AGENTS"

// TestAIAgents runs the programs of AI providers, as npm has them, in guests.
func TestAIAgents(t *testing.T) {
	image := os.Getenv(aiAgentsVariable)
	if image == "" {
		t.Skip("it takes an image with AI agents: run make ai-agents, which builds it where npm's registry is reached")
	}
	dirs := imageDirs(t)
	t.Setenv("SANDBOX_IMAGE", image)
	provider, err := newAIProvider()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go provider.serve(l)

	p := guestScript(t, dirs, buildBinaries(t), "../../testdata/script/aiagents.txtar")
	setup := p.Setup
	p.Setup = func(env *testscript.Env) error {
		if err := setup(env); err != nil {
			return err
		}
		ca := filepath.Join(env.WorkDir, "ca.pem")
		env.Setenv("CA", ca)
		env.Setenv("SSL_CERT_FILE", ca) // for who refreshes logins
		env.Setenv("HTTPS_PROXY", "http://"+l.Addr().String())
		err := os.WriteFile(ca, provider.authority.Certificate(), 0o600)
		for name, value := range provider.keys {
			err = errors.Join(err, os.WriteFile(filepath.Join(env.WorkDir, name), []byte(value), 0o600))
		}
		return err
	}
	command := func(name, argument string, do func(ts *testscript.TestScript, argument string)) {
		p.Cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: %s %s", name, argument)
			}
			do(ts, args[0])
		}
	}
	state := func(ts *testscript.TestScript) string { return filepath.Join(ts.Getenv("XDG_STATE_HOME"), "sandbox") }
	logins := func(ts *testscript.TestScript) login.Store {
		return login.Store{Dir: filepath.Join(state(ts), ".logins")}
	}
	command("log-in", "PROVIDER", func(ts *testscript.TestScript, name string) {
		ts.Check(provider.logIn(t.Context(), logins(ts), name))
	})
	command("expire", "PROVIDER", func(ts *testscript.TestScript, name string) {
		l, err := logins(ts).Get(name)
		ts.Check(err)
		l.Expires = time.Now()
		ts.Check(logins(ts).Put(t.Context(), name, l))
	})
	command("seen", "FILE", func(ts *testscript.TestScript, file string) {
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(provider.log()), 0o600))
	})
	// No file of a sandbox, which the guest's memory is in, no argument and no environment may have a key or a token. That the
	// placeholders in some files are found shows that the memory was searched.
	p.Cmds["search"] = func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("usage: search FILE...")
		}
		var placeholders [][]byte
		for _, file := range args {
			placeholders = append(placeholders, bytes.TrimSpace([]byte(ts.ReadFile(file))))
		}
		secrets, found := provider.secrets(), make([]bool, len(placeholders))
		ts.Check(filepath.WalkDir(state(ts), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.Name() == ".logins" || d.Name() == ".secrets":
				return fs.SkipDir
			case d.Type().IsRegular():
				return readPieces(path, func(piece []byte) {
					if hasAny(piece, secrets) {
						ts.Fatalf("%s has a key or a token", path)
					}
					for i := range found {
						found[i] = found[i] || bytes.Contains(piece, placeholders[i])
					}
				})
			}
			return nil
		}))
		if i := slices.Index(found, false); i >= 0 {
			ts.Fatalf("no file has %s, which a guest's memory is known to have", placeholders[i])
		}
		for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
			files, err := filepath.Glob(pattern)
			ts.Check(err)
			for _, path := range files {
				if text, err := os.ReadFile(path); err == nil && hasAny(text, secrets) { // others end, or are not ours
					ts.Fatalf("%s has a key or a token", path)
				}
			}
		}
	}
	runScript(t, p)
}

// readPieces reads a file in pieces, each of which begins with the end of the one before it.
func readPieces(path string, do func(piece []byte)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const overlap = 4 << 10 // more than any text has that is looked for
	piece, kept := make([]byte, 1<<20), 0
	for {
		n, err := io.ReadFull(f, piece[kept:])
		do(piece[:kept+n])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(piece, piece[len(piece)-overlap:])
	}
}

func hasAny(in []byte, texts [][]byte) bool {
	for _, text := range texts {
		if bytes.Contains(in, text) {
			return true
		}
	}
	return false
}
