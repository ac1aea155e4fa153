package sshagent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// userAgent is an agent of the user's, which counts what it is asked besides for its keys.
type userAgent struct {
	agent.ExtendedAgent
	mu    sync.Mutex
	asked []string
}

func (u *userAgent) note(what string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = append(u.asked, what)
}

func (u *userAgent) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	u.note("sign")
	return u.ExtendedAgent.SignWithFlags(key, data, flags)
}

func (u *userAgent) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	u.note("sign")
	return u.ExtendedAgent.Sign(key, data)
}

func (u *userAgent) Add(agent.AddedKey) error   { u.note("add"); return nil }
func (u *userAgent) Remove(ssh.PublicKey) error { u.note("remove"); return nil }
func (u *userAgent) RemoveAll() error           { u.note("remove all"); return nil }
func (u *userAgent) Lock([]byte) error          { u.note("lock"); return nil }
func (u *userAgent) Unlock([]byte) error        { u.note("unlock"); return nil }
func (u *userAgent) Extension(string, []byte) ([]byte, error) {
	u.note("extension")
	return nil, nil
}

// serveUser returns an agent of the user's with keys of these comments, its socket, and the public keys.
func serveUser(t *testing.T, comments ...string) (*userAgent, string, []ssh.PublicKey) {
	t.Helper()
	ring := agent.NewKeyring().(agent.ExtendedAgent)
	var keys []ssh.PublicKey
	for _, comment := range comments {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.Add(agent.AddedKey{PrivateKey: private, Comment: comment}); err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, signer.PublicKey())
	}
	user := &userAgent{ExtendedAgent: ring}
	socket := filepath.Join(t.TempDir(), "agent")
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
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(user, conn)
			}()
		}
	}()
	return user, socket, keys
}

// borrow returns the borrower's end of a lender of the keys, the uses, and how serving ended once that end is closed.
func borrow(t *testing.T, socket string, keys ...string) (borrower net.Conn, uses func() []Use, ended func() error) {
	t.Helper()
	ours, theirs := net.Pipe()
	var mu sync.Mutex
	var used []Use
	lender := NewLender(func(ctx context.Context) (net.Conn, error) { return Dial(ctx, socket) }, keys, func(context.Context, Use) error { return nil }, func(u Use) {
		mu.Lock()
		defer mu.Unlock()
		used = append(used, u)
	})
	done := make(chan error, 1)
	go func() {
		done <- lender.Serve(t.Context(), theirs)
		theirs.Close()
	}()
	t.Cleanup(func() { ours.Close() })
	uses = func() []Use {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(used)
	}
	return ours, uses, func() error { return <-done }
}

// signatureOf is what is signed for a file.
func signatureOf(namespace string) []byte {
	return append([]byte("SSHSIG"), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Digest                    []byte
	}{namespace, "", "sha512", make([]byte, 64)})...)
}

type loginRequest struct {
	Session               []byte
	Message               byte
	User, Service, Method string
	Signed                bool
	Algorithm             string
	Key                   []byte
}

// loginOf is what is signed for a login.
func loginOf(key ssh.PublicKey, method string) loginRequest {
	return loginRequest{make([]byte, 32), 50, "git", "ssh-connection", method, true, key.Type(), key.Marshal()}
}

func TestOnlyLentKeysAreListedAndUsed(t *testing.T) {
	user, socket, keys := serveUser(t, "lent", "other")
	conn, uses, _ := borrow(t, socket, Fingerprint(keys[0].Marshal()))
	borrower := agent.NewClient(conn)
	listed, err := borrower.List()
	if err != nil || len(listed) != 1 || listed[0].Comment != "lent" || !bytes.Equal(listed[0].Blob, keys[0].Marshal()) {
		t.Errorf("listed: %v, %v", listed, err)
	}
	hostbound := append(ssh.Marshal(loginOf(keys[0], "publickey-hostbound-v00@openssh.com")), ssh.Marshal(struct{ Key []byte }{keys[1].Marshal()})...)
	for _, data := range [][]byte{signatureOf("git"), ssh.Marshal(loginOf(keys[0], "publickey")), hostbound} {
		signature, err := borrower.Sign(keys[0], data)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys[0].Verify(data, signature); err != nil {
			t.Error(err)
		}
		if _, err := borrower.Sign(keys[1], data); err == nil {
			t.Error("a key that is not lent has signed")
		}
	}
	if len(user.asked) != 3 {
		t.Errorf("the user's agent was asked to %v", user.asked)
	}
	var purposes []string
	for _, use := range uses() {
		if use.Err == nil && use.Key == Fingerprint(keys[0].Marshal()) {
			purposes = append(purposes, use.For)
		}
	}
	want := []string{`a signature for "git"`, `a login as "git"`, `a login as "git" at the host whose key is ` + Fingerprint(keys[1].Marshal())}
	if !slices.Equal(purposes, want) || len(uses()) != 6 {
		t.Errorf("uses %v", uses())
	}
}

func TestOnlyWhatSaysItsPurposeIsSigned(t *testing.T) {
	user, socket, keys := serveUser(t, "lent", "other")
	conn, uses, _ := borrow(t, socket, Fingerprint(keys[0].Marshal()))
	borrower := agent.NewClient(conn)
	changed := func(change func(*loginRequest)) []byte {
		login := loginOf(keys[0], "publickey")
		change(&login)
		return ssh.Marshal(login)
	}
	for name, data := range map[string][]byte{
		"nothing":                 nil,
		"any text":                []byte("SSHSI"),
		"a signature for nothing": signatureOf(""),
		"a signature cut short":   signatureOf("git")[:20],
		"another key's login":     ssh.Marshal(loginOf(keys[1], "publickey")),
		"no login":                changed(func(l *loginRequest) { l.Message = 51 }),
		"another service":         changed(func(l *loginRequest) { l.Service = "ssh-userauth" }),
		"another method":          changed(func(l *loginRequest) { l.Method = "hostbased" }),
		"a question only":         changed(func(l *loginRequest) { l.Signed = false }),
		"more than a login":       append(ssh.Marshal(loginOf(keys[0], "publickey")), "more"...),
		"a host without a key":    ssh.Marshal(loginOf(keys[0], "publickey-hostbound-v00@openssh.com")),
		"a certificate": ssh.Marshal(struct {
			Type       string
			Nonce, Key []byte
		}{ssh.CertAlgoED25519v01, make([]byte, 32), keys[0].Marshal()}),
	} {
		if _, err := borrower.Sign(keys[0], data); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
	if len(user.asked) > 0 {
		t.Errorf("the user's agent was asked to %v", user.asked)
	}
	for _, use := range uses() {
		if use.Err == nil {
			t.Errorf("a use that was none: %v", use)
		}
	}
}

func TestNothingElseReachesTheUsersAgent(t *testing.T) {
	user, socket, keys := serveUser(t, "lent", "other")
	conn, uses, _ := borrow(t, socket, Fingerprint(keys[0].Marshal()))
	borrower := agent.NewClient(conn)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, extension := borrower.Extension("session-bind@openssh.com", []byte("text"))
	for what, err := range map[string]error{
		"add": borrower.Add(agent.AddedKey{PrivateKey: private}), "remove": borrower.Remove(keys[0]), "remove all": borrower.RemoveAll(),
		"lock": borrower.Lock([]byte("x")), "unlock": borrower.Unlock([]byte("x")), "extension": extension,
	} {
		if err == nil {
			t.Errorf("the borrower may %s", what)
		}
	}
	flagged := ssh.Marshal(struct {
		Key   []byte `sshtype:"13"`
		Data  []byte
		Flags uint32
	}{keys[0].Marshal(), signatureOf("git"), 1 << 8})
	raw, rawUses, _ := borrow(t, socket, Fingerprint(keys[0].Marshal()))
	for _, message := range [][]byte{{13}, {13, 0xff, 0xff, 0xff, 0xff}, {255}, {0}, {14}, {1}, flagged} {
		if err := binary.Write(raw, binary.BigEndian, uint32(len(message))); err != nil {
			t.Fatal(err)
		}
		if _, err := raw.Write(message); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 5)
		if _, err := io.ReadFull(raw, answer); err != nil || !bytes.Equal(answer, []byte{0, 0, 0, 1, failure}) {
			t.Errorf("%v is answered with %v, %v", message, answer, err)
		}
	}
	// It has all of its keys, and goes on.
	if listed, err := borrower.List(); err != nil || len(listed) != 1 {
		t.Errorf("listed: %v, %v", listed, err)
	}
	if len(user.asked) > 0 {
		t.Errorf("the user's agent was asked to %v", user.asked)
	}
	for _, use := range append(uses(), rawUses()...) {
		if use.Err == nil {
			t.Errorf("a use that was none: %v", use)
		}
	}
}

func TestMessagesHaveAnEnd(t *testing.T) {
	_, socket, keys := serveUser(t, "lent")
	for name, begin := range map[string][]byte{
		"huge":      binary.BigEndian.AppendUint32(nil, 1<<32-1),
		"too long":  binary.BigEndian.AppendUint32(nil, maxMessage+1),
		"empty":     {0, 0, 0, 0},
		"cut short": {0, 0, 1, 0, 13},
	} {
		conn, _, ended := borrow(t, socket, Fingerprint(keys[0].Marshal()))
		if _, err := conn.Write(begin); err != nil {
			t.Fatal(err)
		}
		if name == "cut short" {
			conn.Close()
		}
		if err := ended(); err == nil {
			t.Errorf("a message that is %s is taken", name)
		}
	}
}

func TestNamesOfABorrowerAreBounded(t *testing.T) {
	_, socket, keys := serveUser(t, "lent")
	conn, uses, _ := borrow(t, socket, Fingerprint(keys[0].Marshal()))
	if _, err := agent.NewClient(conn).Sign(keys[0], signatureOf("\x1b[2J\n"+strings.Repeat("x", 100_000))); err != nil {
		t.Fatal(err)
	}
	if used := uses(); len(used) != 1 || len(used[0].For) > 200 || strings.ContainsAny(used[0].For, "\x1b\n") {
		t.Errorf("%v", used)
	}
}

func TestAnAgentThatIsGoneFailsItsUses(t *testing.T) {
	_, _, keys := serveUser(t, "lent")
	conn, uses, _ := borrow(t, filepath.Join(t.TempDir(), "none"), Fingerprint(keys[0].Marshal()))
	borrower := agent.NewClient(conn)
	if _, err := borrower.List(); err == nil {
		t.Error("keys of an agent that is gone are listed")
	}
	if _, err := borrower.Sign(keys[0], signatureOf("git")); err == nil {
		t.Error("an agent that is gone has signed")
	}
	if used := uses(); len(used) != 1 || !errors.Is(used[0].Err, os.ErrNotExist) {
		t.Errorf("%v", used)
	}
}

func TestKeysArePickedByName(t *testing.T) {
	_, socket, keys := serveUser(t, "me@work", "me@home", "twice", "twice")
	of := func(i int) string { return Fingerprint(keys[i].Marshal()) }
	file := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(keys[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []string{of(0), of(1), of(2), of(3)}
	slices.Sort(all)
	for name, want := range map[string][]string{"me@work": {of(0)}, of(2): {of(2)}, file: {of(1)}, All: all} {
		if picked, err := Pick(t.Context(), socket, []string{name}); err != nil || !slices.Equal(picked, want) {
			t.Errorf("%s: %v, %v", name, picked, err)
		}
	}
	if picked, err := Pick(t.Context(), socket, []string{"me@work", of(0), All}); err != nil || !slices.Equal(picked, all) {
		t.Errorf("%v, %v", picked, err)
	}
	for name, want := range map[string]string{"me": of(3) + " twice", "twice": "by its fingerprint", "": "no key"} {
		if _, err := Pick(t.Context(), socket, []string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	_, empty, _ := serveUser(t)
	for socket, want := range map[string]string{"": "SSH_AUTH_SOCK is not set", empty: "ssh-add", empty + "none": "cannot be reached"} {
		if _, err := Pick(t.Context(), socket, []string{All}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", socket, err)
		}
	}
}

func TestACertificateIsItsKeys(t *testing.T) {
	_, _, keys := serveUser(t, "key", "authority")
	certificate := &ssh.Certificate{Key: keys[0], SignatureKey: keys[1], Signature: &ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 64)}, CertType: ssh.UserCert}
	if Fingerprint(certificate.Marshal()) != Fingerprint(keys[0].Marshal()) {
		t.Error("they differ")
	}
}

// As git has it done for commits with gpg.format=ssh.
func TestEachSignatureIsAskedFor(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("it needs ssh-keygen: install openssh-client")
	}
	user, socket, keys := serveUser(t, "lent", "other")
	denied := errors.New("denied")
	answers := make(chan error, 1)
	asked := make(chan Use, 1)
	lender := NewLender(func(ctx context.Context) (net.Conn, error) { return Dial(ctx, socket) }, []string{Fingerprint(keys[0].Marshal())},
		func(_ context.Context, u Use) error { asked <- u; return <-answers }, func(Use) {})
	dir := t.TempDir()
	lent, err := net.Listen("unix", filepath.Join(dir, "lent"))
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Close()
	go func() {
		for {
			conn, err := lent.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = lender.Serve(t.Context(), conn)
			}()
		}
	}()
	sign := func(key ssh.PublicKey, answer error) error {
		t.Helper()
		file := filepath.Join(dir, "key.pub")
		if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(key), 0o600); err != nil {
			t.Fatal(err)
		}
		answers <- answer
		cmd := exec.CommandContext(t.Context(), "ssh-keygen", "-Y", "sign", "-f", file, "-n", "git")
		cmd.Env, cmd.Stdin = append(os.Environ(), "SSH_AUTH_SOCK="+filepath.Join(dir, "lent")), strings.NewReader("a commit")
		return cmd.Run()
	}
	want := Use{Key: Fingerprint(keys[0].Marshal()), For: `a signature for "git"`}
	if err := sign(keys[0], nil); err != nil || <-asked != want {
		t.Errorf("a signature that is allowed: %v", err)
	}
	if err := sign(keys[0], denied); err == nil || <-asked != want || !slices.Equal(user.asked, []string{"sign"}) {
		t.Errorf("one that is denied: %v, and the user's agent is asked to %q", err, user.asked)
	}
	// Nobody is asked about a key that is not lent.
	if err := sign(keys[1], nil); err == nil || len(asked) > 0 || len(user.asked) > 1 {
		t.Errorf("a key that is not lent: %v", err)
	}
}
