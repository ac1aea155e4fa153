package gpgagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// record notes what is sent to an agent. Its methods may be called concurrently.
type record struct {
	mu   sync.Mutex
	sent bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent.Write(p)
}

func (r *record) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.sent.String(), "\n"), "\n")
}

// recordedConn notes what is written.
type recordedConn struct {
	net.Conn
	to *record
}

func (c recordedConn) Write(p []byte) (int, error) {
	_, _ = c.to.Write(p)
	return c.Conn.Write(p)
}

var lent = Key{Fingerprint: strings.Repeat("AB", 20), Keygrips: []string{strings.Repeat("C0", 20)}}

// fakeAgent answers as an agent does that has all keys, and signs with the data.
func fakeAgent(t *testing.T, signature string) (dial func(context.Context) (net.Conn, error), sent *record) {
	t.Helper()
	sent = &record{}
	return func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			fmt.Fprint(theirs, "OK Pleased to meet you, process 1\n")
			for lines := newReader(theirs); ; {
				line, err := readLine(lines)
				if err != nil {
					return
				}
				answer := "OK\n"
				switch line {
				case "PKSIGN":
					answer = "INQUIRE PINENTRY_LAUNCHED 1\n"
				case "END":
					answer = "S PROGRESS x\n" + signature
				}
				fmt.Fprint(theirs, answer)
			}
		}()
		return recordedConn{ours, sent}, nil
	}, sent
}

// say returns what the lender answers, from its greeting on, once all is said.
func say(t *testing.T, l *Lender, text string) (string, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- l.Serve(t.Context(), struct {
			io.Reader
			io.Writer
		}{strings.NewReader(text), theirs})
		theirs.Close()
	}()
	answer, err := io.ReadAll(ours)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer), <-served
}

func TestOnlyASignatureReachesTheUsersAgent(t *testing.T) {
	grip, sum := lent.Keygrips[0], strings.Repeat("0f", 32)
	other := strings.Repeat("D1", 20)
	dial, sent := fakeAgent(t, "D (7:sig%25val)\nOK\n")
	var uses []Use
	l := NewLender(dial, []Key{lent}, "The sandbox a+b asks", func(context.Context, Use) error { return nil }, func(u Use) { uses = append(uses, u) })
	for _, refused := range []string{
		"EXPORT_KEY " + grip, "KEYWRAP_KEY --export", "PKDECRYPT", "PASSWD " + grip, "GET_PASSPHRASE id x y z", "DELETE_KEY " + grip, "GENKEY",
		"IMPORT_KEY", "LEARN", "KILLAGENT", "RELOADAGENT", "READKEY " + grip, "PRESET_PASSPHRASE " + grip, "CLEAR_PASSPHRASE x", "MARKTRUSTED x",
		"LISTTRUSTED", "ISTRUSTED x", "SCD GETINFO version", "GET_CONFIRMATION x", "PUTVAL x y", "GETVAL x", "UPDATESTARTUPTTY", "KEYTOCARD " + grip,
		"GETEVENTCOUNTER", "GETINFO pid", "GETINFO socket_name", "GETINFO ssh_socket_name", "GETINFO cmd_has_option PKSIGN x", "OPTION pinentry-mode=loopback", "OPTION  pretend-request-origin=local",
		"KEYINFO --list", "KEYINFO " + other, "HAVEKEY " + other, "SIGKEY " + other, "SETKEY " + other, "SIGKEY " + grip + " " + other, "SIGKEY",
		"SIGKEY " + strings.ToLower(grip), "PKSIGN", "SETHASH 2 " + sum[:40], "SETHASH 8 " + sum[2:], "SETHASH 8 zz" + sum[2:], "SETHASH --hash=sha256 " + sum, "SETHASH",
		"D x", "END", "CAN", "OK", "\x00", "pksign", "SIGKEY " + grip + "\nSIGKEY " + other + "\nSETHASH 8 " + sum + "\nPKSIGN",
		"SIGKEY " + grip + "\nSETHASH 8 " + sum + "\nRESET\nPKSIGN", "SIGKEY " + grip + "\nSETHASH 8 " + sum + "\nSETHASH x\nPKSIGN",
	} {
		got, err := say(t, l, refused+"\n")
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if err != nil || !strings.HasPrefix(lines[len(lines)-1], "ERR ") || strings.Contains(got, "D ") {
			t.Errorf("%q: %q, %v", refused, got, err)
		}
	}
	if sent.sent.Len() > 0 {
		t.Fatalf("to the user's agent: %q", sent.sent.String())
	}
	for _, use := range uses {
		if use.Err == nil {
			t.Errorf("a use that was none: %v", use)
		}
	}
	uses = nil
	got, err := say(t, l, "option ttyname=/dev/pts/0\nHAVEKEY "+other+" "+grip+"\nKEYINFO "+grip+"\nSIGKEY "+grip+"\nSETKEYDESC Your+bank+asks\nSETHASH 8 "+sum+"\nPKSIGN -- nonce\nBYE\nKILLAGENT\n")
	want := "OK Pleased to meet you\nOK\nOK\nS KEYINFO " + grip + " D - - - P - - -\nOK\nOK\nOK\nOK\nD (7:sig%25val)\nOK\nOK\n"
	if err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if lines := sent.lines(); !slices.Equal(lines, []string{"SIGKEY " + grip, "SETKEYDESC The+sandbox+a%2Bb+asks", "SETHASH 8 " + strings.ToUpper(sum), "PKSIGN", "END"}) {
		t.Errorf("to the user's agent: %q", lines)
	}
	if !slices.Equal(uses, []Use{{Key: lent.Fingerprint, For: "an OpenPGP signature of the SHA-256 digest 0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F…"}}) {
		t.Errorf("uses %v", uses)
	}
}

func TestLinesHaveAnEnd(t *testing.T) {
	dial, sent := fakeAgent(t, "OK\n")
	l := NewLender(dial, []Key{lent}, "", func(context.Context, Use) error { return nil }, func(Use) {})
	for name, text := range map[string]string{"long": "NOP " + strings.Repeat("x", maxLine) + "\n", "endless": strings.Repeat("x", 10*maxLine), "cut short": "NOP"} {
		if _, err := say(t, l, text); err == nil {
			t.Errorf("a line that is %s is taken", name)
		}
	}
	if got, err := say(t, l, "NOP "+strings.Repeat("x", maxLine-4)+"\n"); err != nil || got != "OK Pleased to meet you\nOK\n" {
		t.Errorf("one as long as may be: %q, %v", got, err)
	}
	if sent.sent.Len() > 0 {
		t.Errorf("to the user's agent: %q", sent.sent.String())
	}
}

func TestAnAgentThatDoesNotSignIsToldOf(t *testing.T) {
	for name, signature := range map[string]string{
		"refuses": "ERR 83886179 Operation cancelled\n", "is silent": "OK\n", "sends too much": strings.Repeat("D "+strings.Repeat("x", 900)+"\n", 20) + "OK\n",
		"says too much": strings.Repeat("S x\n", maxAnswers+1) + "OK\n", "sends a broken escape": "D %4\nOK\n",
	} {
		dial, _ := fakeAgent(t, signature)
		var uses []Use
		l := NewLender(dial, []Key{lent}, "", func(context.Context, Use) error { return nil }, func(u Use) { uses = append(uses, u) })
		got, err := say(t, l, "SIGKEY "+lent.Keygrips[0]+"\nSETHASH 8 "+strings.Repeat("0f", 32)+"\nPKSIGN\n")
		if err != nil || !strings.HasSuffix(got, errForbidden) || len(uses) != 1 || uses[0].Err == nil {
			t.Errorf("an agent that %s: %q, %v, %v", name, got, err, uses)
		}
	}
}

func FuzzServe(f *testing.F) {
	f.Add("SIGKEY " + lent.Keygrips[0] + "\nSETHASH 8 " + strings.Repeat("0f", 32) + "\nPKSIGN\n")
	f.Add("HAVEKEY --list\nKEYINFO x\nOPTION a=b\nGETINFO version\nD %0a\r\n# x\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		dial, sent := fakeAgent(t, "D x\nOK\n")
		uses := 0
		l := NewLender(dial, []Key{lent}, "a prompt", func(context.Context, Use) error { return nil }, func(u Use) {
			if u.Err == nil {
				uses++
			}
		})
		l.limit.SetLimit(1e9)
		_, _ = say(t, l, text)
		// Of what was said, the digest alone may be in it.
		const commands = 5
		lines := sent.lines()
		if sent.sent.Len() == 0 {
			lines = nil
		}
		if len(lines) != commands*uses {
			t.Fatalf("%d signatures, and %q", uses, lines)
		}
		for i, line := range lines {
			want := []string{"SIGKEY " + lent.Keygrips[0], "SETKEYDESC a+prompt", "SETHASH ", "PKSIGN", "END"}[i%commands]
			if i%commands == 2 {
				if algorithm, sum, _ := strings.Cut(strings.TrimPrefix(line, want), " "); !capitalHex(sum) || len(sum) != 2*digests[algorithm].size || sum == "" {
					t.Fatalf("%q", line)
				}
			} else if line != want {
				t.Fatalf("%q", line)
			}
		}
	})
}

// gnupg runs a program of GnuPG's with a home of its own.
type gnupg struct {
	t    *testing.T
	home string
}

// newGnupg returns one below /tmp: sockets have short paths.
func newGnupg(t *testing.T) gnupg {
	t.Helper()
	for _, program := range []string{"gpg", "gpg-agent", "gpgconf"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("it needs %s: install gnupg", program)
		}
	}
	home, err := os.MkdirTemp("/tmp", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	g := gnupg{t, home}
	t.Cleanup(func() {
		_, _ = g.run("", "gpgconf", "--kill", "gpg-agent")
		os.RemoveAll(home)
	})
	return g
}

func (g gnupg) run(input string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stdin = append(os.Environ(), "GNUPGHOME="+g.home), strings.NewReader(input)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%q: %w: %s", args, err, complaints.String())
	}
	return out.String(), nil
}

func (g gnupg) must(input string, args ...string) string {
	g.t.Helper()
	out, err := g.run(input, args...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

func TestGPGSignsWithALentKeyAndNoOther(t *testing.T) {
	host, guest := newGnupg(t), newGnupg(t)
	for _, user := range []string{"me@work", "me@home"} {
		host.must("", "gpg", "--batch", "--passphrase", "", "--quick-gen-key", user, "ed25519", "sign")
	}
	t.Setenv("GNUPGHOME", host.home)
	key, err := Pick(t.Context(), "me@work")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"me@nowhere": "no secret key", "me@": "name one by its fingerprint"} {
		if _, err := Pick(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	socket, err := FindSocket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var uses []Use
	var denied error
	l := NewLender(func(ctx context.Context) (net.Conn, error) { return Dial(ctx, socket) }, []Key{key}, "A sandbox asks", func(context.Context, Use) error {
		mu.Lock()
		defer mu.Unlock()
		return denied
	}, func(u Use) {
		mu.Lock()
		defer mu.Unlock()
		uses = append(uses, u)
	})
	// As the guest's gpg is led to a socket elsewhere.
	elsewhere := filepath.Join(guest.home, "elsewhere")
	listener, err := net.Listen("unix", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(guest.home, "S.gpg-agent"), []byte("%Assuan%\nsocket="+elsewhere+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = l.Serve(t.Context(), conn)
			}()
		}
	}()
	guest.must(key.Public, "gpg", "--batch", "--import")
	guest.must(host.must("", "gpg", "--armor", "--export", "me@home"), "gpg", "--batch", "--import")
	signed := guest.must("a text", "gpg", "--batch", "--local-user", "me@work", "--armor", "--sign")
	host.must(signed, "gpg", "--batch", "--verify")
	if listed := guest.must("", "gpg", "--batch", "--list-secret-keys"); !strings.Contains(listed, "me@work") || strings.Contains(listed, "me@home") {
		t.Errorf("secret keys in the guest:\n%s", listed)
	}
	if _, err := guest.run("a text", "gpg", "--batch", "--local-user", "me@home", "--sign"); err == nil {
		t.Error("a key that is not lent has signed")
	}
	if out, err := guest.run("", "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--export-secret-keys", "me@work"); err == nil && out != "" {
		t.Error("a key was given out")
	}
	mu.Lock()
	if len(uses) != 1 || uses[0].Key != key.Fingerprint || uses[0].Err != nil {
		t.Errorf("uses %v", uses)
	}
	denied = errors.New("denied")
	mu.Unlock()
	if _, err := guest.run("a text", "gpg", "--batch", "--local-user", "me@work", "--sign"); err == nil {
		t.Error("what was denied is signed")
	}

	if _, err := exec.LookPath("git"); err != nil {
		return
	}
	mu.Lock()
	denied = nil
	mu.Unlock()
	repository := filepath.Join(t.TempDir(), "repository")
	guest.must("", "git", "init", "--quiet", repository)
	guest.must("", "git", "-C", repository, "-c", "user.name=me", "-c", "user.email=me@work", "-c", "user.signingKey="+key.Fingerprint, "commit", "--quiet", "--allow-empty", "-S", "-m", "signed")
	host.must("", "git", "-C", repository, "verify-commit", "HEAD")
}

// The primary key of a user who has a subkey to sign stays with the user.
func TestSubkeysSignInPlaceOfThePrimaryKey(t *testing.T) {
	line := func(kind, validity, capabilities, token string) string {
		return kind + ":" + validity + ":255:22:0123456789ABCDEF:1:::u:::" + capabilities + ":::" + token + ":::\n"
	}
	grip := func(c string) string { return "grp:::::::::" + strings.Repeat(c, 40) + ":\n" }
	fpr := "fpr:::::::::" + strings.Repeat("F", 40) + ":\n"
	primary := line("sec", "u", "scESC", "+") + fpr + grip("1")
	for name, test := range map[string]struct {
		text string
		want string
	}{
		"no subkey":         {primary, "1"},
		"one to encrypt":    {primary + line("ssb", "u", "e", "+") + grip("2"), "1"},
		"one to sign":       {primary + line("ssb", "u", "s", "+") + "fpr:::::::::" + strings.Repeat("0", 40) + ":\n" + grip("2"), "2"},
		"one on a card":     {primary + line("ssb", "u", "s", "D2760001240100000006") + grip("2"), "2"},
		"one that is over":  {primary + line("ssb", "e", "s", "+") + grip("2"), "1"},
		"one revoked":       {primary + line("ssb", "r", "s", "+") + grip("2"), "1"},
		"primary elsewhere": {line("sec", "u", "scESC", "#") + fpr + grip("1"), ""},
		"primary certifies": {line("sec", "u", "cC", "+") + fpr + grip("1"), ""},
	} {
		keys := parseSecretKeys(test.text)
		if len(keys) != 1 || keys[0].Fingerprint != strings.Repeat("F", 40) {
			t.Errorf("%s: %v", name, keys)
			continue
		}
		var want []string
		if test.want != "" {
			want = []string{strings.Repeat(test.want, 40)}
		}
		if !slices.Equal(keys[0].Keygrips, want) {
			t.Errorf("%s: %q", name, keys[0].Keygrips)
		}
	}
	if keys := parseSecretKeys("ssb\ngrp\nfpr\n:::\nsec"); len(keys) != 1 || len(keys[0].Keygrips) > 0 {
		t.Errorf("%v", keys)
	}
}
