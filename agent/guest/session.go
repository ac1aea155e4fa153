//go:build linux

package guest

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/sourcery-zone/sandbox/agent"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// maxSessionEnv bounds what one session may set by "env" requests.
const maxSessionEnv = 1024

// session is one SSH session channel: at most one process.
type session struct {
	server  *Server
	channel ssh.Channel

	mu       sync.Mutex
	env      []string
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
	case "shell", "exec", "subsystem", agent.RequestExec:
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
	case agent.RequestReportInput:
		s.reports, accepted = true, true
	case "window-change":
		accepted = s.resize(request.Payload)
	case "signal":
		var signal struct{ Name string }
		if ssh.Unmarshal(request.Payload, &signal) == nil {
			accepted = s.signal(agent.SignalNumber(signal.Name))
		}
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
	if s.isControl(request) {
		answer(request, true)
		go func() {
			serveControl(ctx, s.channel, s.server.Controller)
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
	outputs := []output{{p.stdout, s.channel}}
	if p.stderr != nil {
		outputs = append(outputs, output{p.stderr, s.channel.Stderr()})
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
	copyOutputs(outputs, exited)
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
		in.Close()
		return
	}
	if err == nil {
		// The terminal may be gone by now, which is as good.
		_, _ = p.stdin.Write(endOfInput(p.stdin, last.written && last.byte != '\n'))
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
	name := agent.SignalName(int(status.Signal()))
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
