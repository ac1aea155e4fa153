package sshagent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/time/rate"
)

const (
	// maxMessage bounds a message of the borrower's, in bytes, as OpenSSH's agent does.
	maxMessage = 256 << 10

	// signTime bounds how long the user's agent may take to sign, which may ask the user or wait for a touch.
	signTime = 2 * time.Minute

	// How often a borrower is answered: atOnce after a pause, and then perSecond. It bounds what the user's agent is
	// asked, and how fast a log of uses is filled.
	perSecond, atOnce = 5, 200
)

// Numbers of the messages of the agents' protocol that are spoken here.
const (
	failure           = 5
	requestIdentities = 11
	identitiesAnswer  = 12
	signRequest       = 13
)

// Use is a signature that a borrower has asked for.
type Use struct {
	Key string // its fingerprint
	For string // what is signed, in words; empty if that could not be told
	Err error  // why there was no signature, or nil
}

// Lender lends keys.
type Lender struct {
	dial func(context.Context) (net.Conn, error)
	keys []string
	ask  func(context.Context, Use) error
	used func(Use)

	limit *rate.Limiter
}

// NewLender returns one that lends the keys with these fingerprints of the agent that dial connects to. It asks before each
// use, which an error refuses, and tells of it when it is over.
func NewLender(dial func(context.Context) (net.Conn, error), keys []string, ask func(context.Context, Use) error, used func(Use)) *Lender {
	return &Lender{dial, keys, ask, used, rate.NewLimiter(perSecond, atOnce)}
}

// Serve answers a borrower, one message after the other, until there are no more, one is too long, or ctx ends.
func (l *Lender) Serve(ctx context.Context, borrower io.ReadWriter) error {
	for {
		message, err := read(borrower)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.limit.Wait(ctx); err != nil {
			return err
		}
		answer := l.answer(ctx, message)
		framed := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(answer)), uint32(len(answer)))
		if _, err := borrower.Write(append(framed, answer...)); err != nil {
			return err
		}
	}
}

// read reads a message without its length.
func read(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes is none that an ssh agent is sent", n)
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, fmt.Errorf("a message breaks off: %w", err)
	}
	return message, nil
}

func (l *Lender) answer(ctx context.Context, message []byte) []byte {
	var answer []byte
	var err error
	switch message[0] {
	case requestIdentities:
		answer, err = l.list(ctx)
	case signRequest:
		answer, err = l.sign(ctx, message)
	default:
		err = errors.New("keys are listed and used, and nothing else")
	}
	if err != nil {
		return []byte{failure}
	}
	return answer
}

func (l *Lender) list(ctx context.Context) ([]byte, error) {
	conn, _, keys, err := l.lent(ctx)
	if err != nil {
		return nil, err
	}
	conn.Close()
	answer := binary.BigEndian.AppendUint32([]byte{identitiesAnswer}, uint32(len(keys)))
	for _, key := range keys {
		answer = append(answer, ssh.Marshal(struct {
			Blob    []byte
			Comment string
		}{key.Blob, key.Comment})...)
	}
	return answer, nil
}

// lent connects to the user's agent and returns those of its keys that are lent. The caller closes the connection.
func (l *Lender) lent(ctx context.Context) (net.Conn, agent.ExtendedAgent, []*agent.Key, error) {
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	client := agent.NewClient(conn)
	keys, err := list(ctx, conn, client)
	if err != nil {
		conn.Close()
		return nil, nil, nil, err
	}
	return conn, client, slices.DeleteFunc(keys, func(k *agent.Key) bool { return !slices.Contains(l.keys, Fingerprint(k.Blob)) }), nil
}

func (l *Lender) sign(ctx context.Context, message []byte) ([]byte, error) {
	var request struct {
		Key   []byte `sshtype:"13"`
		Data  []byte
		Flags uint32
	}
	if err := ssh.Unmarshal(message, &request); err != nil {
		return nil, err
	}
	use := Use{Key: Fingerprint(request.Key)}
	var signature *ssh.Signature
	use.For, use.Err = purpose(request.Key, request.Data)
	if use.Err == nil && !slices.Contains(l.keys, use.Key) {
		use.Err = errNotLent
	}
	if use.Err == nil {
		use.Err = l.ask(ctx, use)
	}
	if use.Err == nil {
		signature, use.Err = l.signature(ctx, request.Key, request.Data, agent.SignatureFlags(request.Flags))
	}
	l.used(use)
	if use.Err != nil {
		return nil, use.Err
	}
	return ssh.Marshal(struct {
		Signature []byte `sshtype:"14"`
	}{ssh.Marshal(signature)}), nil
}

var errNotLent = errors.New("this key is not lent, or the ssh agent has it no more")

// signature asks the user's agent for one, with a key that it has told of itself.
func (l *Lender) signature(ctx context.Context, blob, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	if flags&^(agent.SignatureFlagRsaSha256|agent.SignatureFlagRsaSha512) != 0 {
		return nil, errors.New("it asks for a kind of signature that does not exist")
	}
	conn, client, keys, err := l.lent(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	i := slices.IndexFunc(keys, func(k *agent.Key) bool { return string(k.Blob) == string(blob) })
	if i < 0 {
		return nil, errNotLent
	}
	stop := closeAfter(ctx, conn, signTime)
	defer stop()
	signature, err := client.SignWithFlags(keys[i], data, flags)
	if err != nil {
		return nil, fmt.Errorf("the ssh agent does not sign: %w", err)
	}
	return signature, nil
}
