package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/agenttest"
	"github.com/sourcery-zone/sandbox/internal/terminal"
)

// helperSocket is where the test is that answers what Git asks of a remote helper.
const helperSocket = "SANDBOX_TEST_REMOTE_HELPER"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != remoteHelper {
		os.Exit(m.Run())
	}
	conn, err := net.Dial("unix", os.Getenv(helperSocket))
	if err != nil {
		panic(err)
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(os.Stdout, conn)
	os.Exit(0)
}

// gitHere returns a function that runs git in a directory, where sandbox:: leads to the agent.
func gitHere(t *testing.T, server *agenttest.Server, dir string, shared ...string) func(args ...string) (string, error) {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, remoteHelper)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(bin, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r := gitRemote{in: bufio.NewReader(conn), out: conn, notes: terminal.NewWriter(io.Discard), dial: func() (*agent.Client, []string, error) {
				return server.Client(t), shared, nil
			}}
			if err := r.serve(t.Context()); err != nil {
				t.Log(err)
			}
			conn.Close()
		}
	}()
	return func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), helperSocket+"="+socket)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// gitWithoutSettings keeps what a developer has told git out of a test, and names an author.
func gitWithoutSettings(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("install git to run this test")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+who+"_NAME", "x")
		t.Setenv("GIT_"+who+"_EMAIL", "x@example.com")
	}
}

func TestGitFetchesFromAGuestAndPushesToIt(t *testing.T) {
	gitWithoutSettings(t)
	server := agenttest.NewServer(t)
	there := filepath.Join(server.Home, "project")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", there}, {"-C", there, "commit", "-q", "--allow-empty", "-m", "of the guest"}, {"-C", there, "tag", "v1"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	here := t.TempDir()
	git := gitHere(t, server, here, filepath.Join(server.Home, "other"), there)
	for _, step := range []struct{ line, want string }{
		{"init -q -b main", ""},
		{"fetch sandbox::work", "FETCH_HEAD"},
		{"log --format=%s FETCH_HEAD", "of the guest"},
		{"for-each-ref", ""},
		{"commit -q --allow-empty -m mine", ""},
		{"push sandbox::work main:refs/heads/mine", "new branch"},
		{"remote add sandbox-work sandbox::work", ""},
		{"-c fetch.fsckObjects=true fetch sandbox-work", "sandbox-work/mine"},
		{"archive --remote=sandbox::work HEAD", "can't connect to subservice"},
	} {
		out, err := git(strings.Fields(step.line)...)
		if !strings.Contains(out, step.want) || err != nil && !strings.HasPrefix(step.line, "archive") {
			t.Errorf("git %s: %v\n%s", step.line, err, out)
		}
		if step.line == "for-each-ref" && out != "" {
			t.Errorf("a fetch from an address has made %s", out)
		}
	}
	empty := gitHere(t, server, here, filepath.Join(server.Home, "other"))
	if out, err := empty("fetch", "sandbox::work"); err == nil {
		t.Errorf("no share is a repository, and git says %s", out)
	}
}

func TestAnAddressNamesASandboxAndAPath(t *testing.T) {
	for address, want := range map[string]string{
		"work": "work|", "work/": "work|", "work/src/app": "work|src/app", "work/~/app": "work|app", "work//srv/app": "work|/srv/app",
		"": "error", "/srv": "error", "sandbox://work/app": "error", "-x": "error",
	} {
		name, dir, err := parseRemote(address)
		got := name + "|" + dir
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, %v; want %s", address, got, err, want)
		}
	}
}

// packet is one as Git sends it.
func packet(content string) string { return fmt.Sprintf("%04x%s", len(content)+4, content) }

func TestWhatAGuestsGitSaysDoesNothingToATerminal(t *testing.T) {
	const evil, harmless = "\x1b]0;owned\x07 \u009b2J \u202e \x7f", "?]0;owned? ??2J ??? ?"
	pack := "\x01PACK\x1b\x00\xff"
	for name, c := range map[string]struct {
		pack     bool
		in, want string
	}{
		"progress":       {true, packet("\x02Counting: 5%\rdone\n" + evil), packet("\x02Counting: 5%\rdone\n" + harmless)},
		"a fatal error":  {true, packet("\x03" + evil), packet("\x03" + harmless)},
		"a name":         {true, packet("refs/heads/é" + evil + "\x00side-band-64k"), packet("refs/heads/é" + harmless + "\x00side-band-64k")},
		"a pack":         {true, packet(pack) + "0000" + packet("\x02"+evil), packet(pack) + "0000" + packet("\x02"+harmless)},
		"what push gets": {false, packet("\x01" + packet("ng refs/heads/x "+evil)), packet("\x01" + packet("ng refs/heads/x "+harmless))},
		"marks":          {true, "0000000100020003" + packet("NAK\n"), "0000000100020003" + packet("NAK\n")},
		"a bare pack":    {true, packet("NAK\n") + pack, packet("NAK\n") + pack},
		"nothing more":   {true, packet("NAK\n") + "00ff cut off", packet("NAK\n")},
	} {
		for _, size := range []int{1, 3, 1 << 20} { // however it comes in pieces
			var out bytes.Buffer
			f := &packetFilter{w: &out, pack: c.pack}
			for rest := []byte(c.in); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				if n, err := f.Write(bytes.Clone(rest[:min(size, len(rest))])); err != nil || n == 0 {
					t.Fatal(n, err)
				}
			}
			if got := out.String(); got != c.want {
				t.Errorf("%s in pieces of %d: %q, want %q", name, size, got, c.want)
			}
		}
	}
}
