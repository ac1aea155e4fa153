//go:build linux

package server

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const (
	// maxSessionEnv bounds what one session may set by "env" requests.
	maxSessionEnv = 1024

	// maxParts bounds the parts of a request to execute, in bytes. JSON has at
	// most six for one of an argument, and the host sends no more arguments
	// than a kernel takes.
	maxParts = 6*wire.MaxExec + 1<<20
)

// session is one SSH session channel: at most one process.
type session struct {
	server   *Server
	channel  ssh.Channel
	forwards *listeners // of the connection

	mu       sync.Mutex
	env      []string
	parts    []byte // of a request to execute that is too long for one message
	terminal *terminalRequest
	process  *process // while it runs
	reports  bool     // the other side wants to know how much input is read
}

// terminalRequest is the payload of "pty-req" as far as it is used: modes are
// left to the kernel, which knows what a fresh terminal is like.
type terminalRequest struct {
	Term                          string
	Width, Height, PixelW, PixelH uint32
	Modes                         string
}

// serve handles the channel's requests until the other side has closed it.
func (s *session) serve(ctx context.Context, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.hangUp()

	var (
		begun    bool
		starting chan struct{}  // closed once the start is answered; nil otherwise
		held     []*ssh.Request // for replies have to keep the order of requests
	)
	for {
		select {
		case request, ok := <-requests:
			switch {
			case !ok:
				return
			case starting != nil && request.WantReply:
				held = append(held, request)
			case !begun && startsProcess(request.Type):
				begun, starting = true, make(chan struct{})
				go s.start(ctx, request, starting)
			default:
				s.handle(request)
			}
		case <-starting:
			for _, request := range held {
				s.handle(request)
			}
			held, starting = nil, nil
		}
	}
}

func startsProcess(request string) bool {
	switch request {
	case "shell", "exec", "subsystem", wire.RequestExec:
		return true
	}
	return false
}

// handle answers a request that starts nothing.
func (s *session) handle(request *ssh.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	accepted := false
	switch request.Type {
	case "pty-req":
		var terminal terminalRequest
		if ssh.Unmarshal(request.Payload, &terminal) == nil {
			s.terminal = &terminal
			accepted = true
		}
	case "env":
		var setting struct{ Name, Value string }
		if ssh.Unmarshal(request.Payload, &setting) == nil && len(s.env) < maxSessionEnv {
			s.env = append(s.env, setting.Name+"="+setting.Value)
			accepted = true
		}
	case wire.RequestAgent:
		if socket, err := s.forwards.agentSocket(); err == nil {
			s.env = append(s.env, "SSH_AUTH_SOCK="+socket)
			accepted = true
		}
	case wire.RequestReportInput:
		s.reports, accepted = true, true
	case "window-change":
		accepted = s.resize(request.Payload)
	case "signal":
		var signal struct{ Name string }
		if ssh.Unmarshal(request.Payload, &signal) == nil {
			accepted = s.signal(wire.SignalNumber(signal.Name))
		}
	case wire.RequestExecPart:
		if s.server.Controller != nil && len(s.parts)+len(request.Payload) <= maxParts {
			s.parts = append(s.parts, request.Payload...)
			accepted = true
		}
	case wire.RequestCloseOutput:
		accepted = s.closeOutput(request.Payload)
	}
	answer(request, accepted)
}

func answer(request *ssh.Request, accepted bool) {
	if request.WantReply {
		// It fails only when the connection has ended, which shows elsewhere.
		_ = request.Reply(accepted, nil)
	}
}

func (s *session) resize(payload []byte) bool {
	var size struct{ Width, Height, PixelW, PixelH uint32 }
	if s.terminal == nil || ssh.Unmarshal(payload, &size) != nil {
		return false
	}
	s.terminal.Width, s.terminal.Height = size.Width, size.Height
	if s.process == nil {
		return true
	}
	return setSize(s.process.stdout, windowSize{size.Width, size.Height}) == nil
}

// closeOutput closes an output that the other side cannot take any more, so
// that who writes to it gets SIGPIPE, as at the end of any pipeline. On a
// terminal it is a hang-up.
func (s *session) closeOutput(payload []byte) bool {
	if s.process == nil {
		return false
	}
	stream := s.process.stdout
	if wire.ClosesErrorOutput(payload) && s.process.stderr != nil {
		stream = s.process.stderr
	}
	return stream.Close() == nil
}

// signal reaches the process's whole group, as the keys of a terminal do.
func (s *session) signal(number int) bool {
	return number > 0 && s.process != nil && unix.Kill(-s.process.Pid, unix.Signal(number)) == nil
}

// hangUp tells a process that whoever started it has gone, as closing a
// terminal does. One that is to stay uses nohup, setsid or tmux.
func (s *session) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.signal(int(unix.SIGHUP)) {
		s.signal(int(unix.SIGCONT)) // a stopped process has to notice, too
	}
}

// start starts what the request asks for and answers it; then it closes
// answered. From there on the process has a goroutine of its own.
func (s *session) start(ctx context.Context, request *ssh.Request, answered chan<- struct{}) {
	defer close(answered)
	if serve := s.ownSubsystem(request); serve != nil {
		answer(request, true)
		go func() {
			serve(ctx, s.channel, s.server.Controller)
			s.channel.Close()
		}()
		return
	}
	wanted, ok := s.parse(request)
	if !ok {
		answer(request, false)
		return
	}
	process, err := s.startProcess(ctx, wanted)
	if ctx.Err() != nil && process == nil {
		return
	}
	answer(request, true)
	if err != nil {
		status := exitRefused
		if refused, ok := errors.AsType[*startError](err); ok {
			status = refused.status
		}
		newline := "\n"
		if s.hasTerminal() {
			newline = "\r\n" // the other side's terminal is in raw mode
		}
		_, _ = io.WriteString(s.channel.Stderr(), "sandbox: "+err.Error()+newline)
		go s.end(exitStatus(status))
		return
	}
	go s.run(process)
}

// run moves the process's data until its end, and reports the end.
func (s *session) run(p *process) {
	in, metered := s.input(p)
	go s.feed(p, in)
	outputs := []output{{p.stdout, s.channel, p.stderr == nil}}
	if p.stderr != nil {
		outputs = append(outputs, output{p.stderr, s.channel.Stderr(), false})
	}
	exited := make(chan struct{})
	var state *os.ProcessState
	go func() {
		defer close(exited)
		// It fails only for a process that is not our child.
		state, _ = p.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.process = nil // its number may be another's from now on
	}()
	copyOutputs(outputs, exited, p.Pid)
	in.Close()
	if metered != nil {
		s.reportInput(metered.taken())
	}
	s.end(exitMessage(state))
}

// feed gives the process its input and then the end of it.
func (s *session) feed(p *process, in io.WriteCloser) {
	last := &lastByte{w: in}
	_, err := io.Copy(last, onlyReader{s.channel})
	if p.stdin != p.stdout {
		if err == nil && !s.answers() {
			// What was cut off must not look like all that there is: the
			// process has to hear of that first.
			s.hangUp()
		}
		in.Close()
		return
	}
	if err == nil {
		// The terminal may be gone by now, which is as good.
		_, _ = p.stdin.Write(endOfInput(p.stdin, last.written && last.byte != '\n'))
	}
}

// answerTimeout is how long an end of the input is held back for a client that
// does not answer, as one that was stopped.
const answerTimeout = 10 * time.Second

// answers reports whether the other side is still there. The end of its data
// and the loss of the connection look the same to who reads.
func (s *session) answers() bool {
	answer := make(chan error, 1)
	go func() {
		_, err := s.channel.SendRequest("keepalive@openssh.com", true, nil)
		answer <- err
	}()
	select {
	case err := <-answer:
		return err == nil
	case <-time.After(answerTimeout):
		return true
	}
}

// lastByte remembers the last byte that went through it.
type lastByte struct {
	w       io.Writer
	written bool
	byte    byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	if n > 0 {
		l.written, l.byte = true, p[n-1]
	}
	return n, err
}

// message is a request that reports a process's end, RFC 4254 section 6.10.
type message struct {
	kind    string
	payload []byte
}

func exitStatus(code int) message {
	return message{"exit-status", ssh.Marshal(struct{ Code uint32 }{uint32(code)})}
}

func exitMessage(state *os.ProcessState) message {
	if state == nil {
		return exitStatus(exitRefused)
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	if !status.Signaled() {
		return exitStatus(status.ExitStatus())
	}
	name := wire.SignalName(int(status.Signal()))
	if name == "" {
		return exitStatus(128 + int(status.Signal()))
	}
	return message{"exit-signal", ssh.Marshal(struct {
		Name       string
		CoreDumped bool
		Message    string
		Language   string
	}{Name: name, CoreDumped: status.CoreDump()})}
}

// end closes the channel after everything else has been said. All errors here
// mean that the other side has closed it first.
func (s *session) end(report message) {
	_ = s.channel.CloseWrite()
	_, _ = s.channel.SendRequest(report.kind, false, report.payload)
	_ = s.channel.Close()
}
