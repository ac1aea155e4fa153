package gpgagent

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	// signTime bounds how long the user's agent may take to sign, which may ask the user or wait for a touch.
	signTime = 2 * time.Minute

	// maxSignature bounds a signature in bytes, and maxAnswers the lines that the user's agent answers with.
	maxSignature, maxAnswers = 16 << 10, 1000

	// How often a borrower is answered: atOnce after a pause, and then perSecond. It bounds what the user's agent is
	// asked, and how fast a log of uses is filled.
	perSecond, atOnce = 20, 400
)

// Answers of errors, as gpg-agent gives them: GPG_ERR_SOURCE_GPGAGENT, and a code of libgpg-error.
const (
	errUnknown   = "ERR 67109139 Unknown IPC command <GPG Agent>\n"
	errForbidden = "ERR 67109115 Forbidden <GPG Agent>\n"
	errNoKey     = "ERR 67108881 No secret key <GPG Agent>\n"
	errParameter = "ERR 67109144 IPC parameter error <GPG Agent>\n"
	errNoCard    = "ERR 67108983 No SmartCard daemon <GPG Agent>\n"
	ok           = "OK\n"
)

// version is what a borrower is told: later than any there is, as gpg warns of an agent that is older than itself.
const version = "99.0.0"

// digests are the sizes in bytes of those that are signed, by their numbers in Libgcrypt. MD5 and SHA-1 are not.
var digests = map[string]struct {
	name string
	size int
}{"8": {"SHA-256", 32}, "9": {"SHA-384", 48}, "10": {"SHA-512", 64}, "11": {"SHA-224", 28}}

// Use is a signature that a borrower has asked for.
type Use struct {
	Key string // its fingerprint; empty if it is none that is lent
	For string // what is signed, in words
	Err error  // why there was no signature, or nil
}

// Lender lends keys.
type Lender struct {
	dial   func(context.Context) (net.Conn, error)
	keys   []Key
	prompt string
	ask    func(context.Context, Use) error
	used   func(Use)

	limit *rate.Limiter
}

// NewLender returns one that lends the keys of the agent that dial connects to. Where that asks the user for a passphrase, or
// for consent, it shows the prompt. The lender asks before each use, which an error refuses, and tells of it when it is over.
func NewLender(dial func(context.Context) (net.Conn, error), keys []Key, prompt string, ask func(context.Context, Use) error, used func(Use)) *Lender {
	return &Lender{dial, keys, prompt, ask, used, rate.NewLimiter(perSecond, atOnce)}
}

// borrower is the state of a connection.
type borrower struct {
	keygrip           string // that was chosen, of a key that is lent
	algorithm, digest string // that were chosen, as they are written in the protocol
}

// Serve answers a borrower, one line after the other, until there are no more, one is too long, or ctx ends.
func (l *Lender) Serve(ctx context.Context, conn io.ReadWriter) error {
	if _, err := io.WriteString(conn, "OK Pleased to meet you\n"); err != nil {
		return err
	}
	var b borrower
	for lines := newReader(conn); ; {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if line == "" || line[0] == '#' { // a comment
			continue
		}
		if err := l.limit.Wait(ctx); err != nil {
			return err
		}
		command, args, _ := strings.Cut(line, " ")
		command = strings.ToUpper(command)
		if _, err := io.WriteString(conn, l.answer(ctx, &b, command, strings.Fields(args))); err != nil {
			return err
		}
		if command == "BYE" {
			return nil
		}
	}
}

func (l *Lender) answer(ctx context.Context, b *borrower, command string, args []string) string {
	switch command {
	case "NOP", "BYE":
		return ok
	case "RESET":
		*b = borrower{}
		return ok
	case "OPTION":
		return option(args)
	case "GETINFO":
		switch {
		case slices.Equal(args, []string{"version"}):
			return "D " + version + "\n" + ok
		case slices.Equal(args, []string{"restricted"}):
			return ok // true
		}
		return errForbidden
	case "SCD":
		return errNoCard
	case "HAVEKEY":
		return l.haveKey(args)
	case "KEYINFO":
		if len(args) != 1 || !l.lends(args[0]) {
			return errNoKey
		}
		return fmt.Sprintf("S KEYINFO %s D - - - P - - -\n%s", args[0], ok)
	case "SIGKEY", "SETKEY":
		b.keygrip = ""
		if len(args) != 1 || !l.lends(args[0]) {
			return errNoKey
		}
		b.keygrip = args[0]
		return ok
	case "SETKEYDESC":
		return ok // the prompt is ours
	case "SETHASH":
		b.algorithm, b.digest = "", ""
		if len(args) != 2 {
			return errParameter
		}
		sum, err := hex.DecodeString(args[1])
		if known, is := digests[args[0]]; err != nil || !is || len(sum) != known.size {
			return errParameter
		}
		b.algorithm, b.digest = args[0], strings.ToUpper(args[1])
		return ok
	case "PKSIGN":
		return l.sign(ctx, b)
	}
	return errUnknown
}

// option answers as if it were set. It is for a prompt that is none of the borrower's business.
func option(args []string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.Join(args, " "), "--"), "=")
	switch strings.TrimSpace(name) {
	case "ttyname", "ttytype", "display", "xauthority", "putenv", "lc-ctype", "lc-messages", "allow-pinentry-notify", "agent-awareness", "use-cache-for-signing":
		return ok
	}
	return errForbidden
}

// lends tells whether the keygrip is of a key that is lent.
func (l *Lender) lends(keygrip string) bool {
	return slices.ContainsFunc(l.keys, func(k Key) bool { return slices.Contains(k.Keygrips, keygrip) })
}

func (l *Lender) haveKey(args []string) string {
	if len(args) == 1 && (args[0] == "--list" || strings.HasPrefix(args[0], "--list=")) {
		var grips []byte
		for _, key := range l.keys {
			for _, grip := range key.Keygrips {
				sum, _ := hex.DecodeString(grip) // as of Key.Validate
				grips = append(grips, sum...)
			}
		}
		return dataLines(grips) + ok
	}
	if slices.ContainsFunc(args, l.lends) {
		return ok
	}
	return errNoKey
}

var errNotChosen = errors.New("no key that is lent and no digest were named")

func (l *Lender) sign(ctx context.Context, b *borrower) string {
	use := Use{For: "an OpenPGP signature"}
	if known, is := digests[b.algorithm]; is {
		use.For += " of the " + known.name + " digest " + b.digest[:32] + "…"
	}
	for _, key := range l.keys {
		if slices.Contains(key.Keygrips, b.keygrip) {
			use.Key = key.Fingerprint
		}
	}
	if use.Key == "" || b.digest == "" {
		use.Err = errNotChosen
	}
	if use.Err == nil {
		use.Err = l.ask(ctx, use)
	}
	var signature []byte
	if use.Err == nil {
		signature, use.Err = l.signature(ctx, *b)
	}
	l.used(use)
	if use.Err != nil {
		return errForbidden
	}
	return dataLines(signature) + ok
}

// signature asks the user's agent for one.
func (l *Lender) signature(ctx context.Context, b borrower) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	agent := agentConn{conn, newReader(conn), maxAnswers}
	if _, err := agent.answer(); err != nil { // its greeting
		return nil, err
	}
	for _, command := range []string{"SIGKEY " + b.keygrip, "SETKEYDESC " + plusEscape(l.prompt), "SETHASH " + b.algorithm + " " + b.digest} {
		if _, err := agent.ask(command); err != nil {
			return nil, err
		}
	}
	signature, err := agent.ask("PKSIGN")
	if err == nil && len(signature) == 0 {
		err = errors.New("your gpg-agent says that it has signed, and gives no signature")
	}
	return signature, err
}

// agentConn is a connection to the user's agent.
type agentConn struct {
	conn  io.Writer
	lines *bufio.Reader
	left  int // how many lines it may still answer with
}

func (a *agentConn) ask(command string) ([]byte, error) {
	if _, err := io.WriteString(a.conn, command+"\n"); err != nil {
		return nil, fmt.Errorf("your gpg-agent has gone: %w", err)
	}
	return a.answer()
}

// answer reads to the end of an answer, and returns the data in it. A question is left without one: those that there are, such
// as of a program that was started to ask the user, need none.
func (a *agentConn) answer() ([]byte, error) {
	var data []byte
	for ; a.left > 0; a.left-- {
		line, err := readLine(a.lines)
		if err != nil {
			return nil, fmt.Errorf("your gpg-agent does not answer: %w", err)
		}
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "OK":
			return data, nil
		case "ERR":
			return nil, fmt.Errorf("your gpg-agent refuses: %q", rest)
		case "D":
			more, err := unescape(rest)
			if err != nil {
				return nil, fmt.Errorf("your gpg-agent's answer cannot be read: %w", err)
			}
			if data = append(data, more...); len(data) > maxSignature {
				return nil, fmt.Errorf("your gpg-agent answers with more than %d bytes", maxSignature)
			}
		case "INQUIRE":
			if _, err := io.WriteString(a.conn, "END\n"); err != nil {
				return nil, fmt.Errorf("your gpg-agent has gone: %w", err)
			}
		}
	}
	return nil, fmt.Errorf("your gpg-agent answers with more than %d lines", maxAnswers)
}
