// Package server is the process that is between a guest and the network: it reads what the guest sends, judges
// it, and makes connections in the guest's place. Package gateway starts and feeds it. Nothing of the guest's
// network is anywhere else, so that somebody who takes this process over from within the guest has no files, no
// other programs, and no more of the network than the user has.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/gateway/internal/wire"
	"github.com/sourcery-zone/sandbox/network/proxy"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/network/stack"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// memoryLimit is how much memory, in bytes, Go may use before it rather collects garbage all the time.
const memoryLimit = 64 << 20

// Main does the work of a gateway and never returns if this process was started as one; otherwise it returns at
// once. It stands in the main function of every program that calls gateway.Start, after confine.Main.
func Main() {
	if os.Args[0] != gateway.Name {
		return
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run serves until whoever started it is gone.
func run() error {
	// What is in transit may be secret: nobody who runs as this user may read it here.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping others out of the gateway: %w", err)
	}
	unix.CloseOnExec(gateway.FDControl)
	unix.CloseOnExec(gateway.FDNotices)
	debug.SetMemoryLimit(memoryLimit)
	// What passes a frame on is one goroutine after the other. With a second processor, Go wakes a thread for each, on
	// processors that the guest waits for (measured: 18 switches for a connection in place of 11), and one is all that a
	// guest can keep busy here.
	runtime.GOMAXPROCS(1)
	// Package net/http logs what hosts send without having been asked, and they may repeat a secret there.
	log.SetOutput(io.Discard)
	control, err := wire.NewConn(os.NewFile(gateway.FDControl, "control"))
	if err != nil {
		return err
	}
	defer control.Close()
	notices, err := wire.NewConn(os.NewFile(gateway.FDNotices, "notices"))
	if err != nil {
		return err
	}
	defer notices.Close()
	notifier := wire.NewNotifier(notices)
	s := server{published: map[int]func(){}, notices: notifier, loopback: newLoopback(notifier), log: slog.New(slog.NewJSONHandler(os.Stderr, nil))}
	defer s.close()
	for {
		request, f, err := control.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading what to do: %w", err)
		}
		if err := control.Reply(s.do(request, f)); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

type server struct {
	network   *stack.Network // nil before the start
	mode      network.Mode
	published map[int]func() // each closes a port
	secrets   secrets
	notices   *wire.Notifier
	loopback  *loopback
	log       *slog.Logger
}

func (s *server) close() {
	if s.network != nil {
		_ = s.network.Close()
	}
}

// do takes over the file.
func (s *server) do(r wire.Request, f *os.File) error {
	switch {
	case r.Secret != nil && s.network == nil:
		if len(s.secrets.entries) == 0 {
			if err := lockMemory(); err != nil {
				s.log.Debug("secrets may get into the host's swap space", "err", err)
			}
		}
		return s.secrets.add(*r.Secret, f)
	case r.Value != nil && s.network != nil:
		return s.secrets.set(r.Value.Name, f)
	case r.Start != nil && s.network == nil && f != nil:
		return s.start(*r.Start, f)
	case r.Publish != nil && s.network != nil && f != nil:
		return s.publish(*r.Publish, f)
	case r.Loopback != nil:
		return s.loopback.take(*r.Loopback, f)
	case r.Rules != nil && s.network != nil && f == nil:
		config, err := stack.ConfigOf(s.mode, r.Rules.Allow, r.Rules.Deny)
		if err != nil {
			return err
		}
		return s.network.SetRules(config)
	case len(r.Authority) > 0 && s.network != nil && f == nil:
		p, err := s.reads(r.Authority, nil)
		if err != nil {
			return err
		}
		return s.network.SetProxy(p)
	case r.AllowOnce != "" && s.network != nil && f == nil:
		return s.network.AllowOnce(r.AllowOnce)
	case s.published[r.Unpublish] != nil:
		s.published[r.Unpublish]()
		delete(s.published, r.Unpublish)
		return nil
	}
	if f != nil {
		f.Close()
	}
	return errors.New("the gateway was asked for what it cannot do now")
}

func (s *server) start(r wire.Start, link *os.File) (err error) {
	config, err := stack.ConfigOf(r.Mode, r.Allow, r.Deny)
	if err != nil {
		return errors.Join(err, link.Close())
	}
	if config.Upstream, err = upstream.New(r.Upstream); err != nil {
		return errors.Join(err, link.Close())
	}
	if config.Upstream != nil {
		go config.Upstream.Addresses() // of which the first lookup is waited for, and not when the guest connects
	}
	table, err := s.secrets.start()
	if err != nil {
		return errors.Join(err, link.Close())
	}
	config.Read = table.Hosts()
	answers := answersOf(r.Responses)
	for _, a := range answers {
		if !slices.Contains(config.Read, a.Host) {
			config.Read = append(config.Read, a.Host)
		}
	}
	config.IPv6 = network.HasIPv6()
	config.HostPorts, config.Loopback = r.HostPorts, s.loopback.dial
	if config.Ask != nil {
		config.Ask = func(q stack.Question) { s.notices.Notify(wire.Notice{Question: &q}) }
	}
	if r.Remedy != "" {
		config.Remedy = func(rule string) string { return r.Remedy + " " + shellescape.Quote(rule) } // a path is the guest's to choose
	}
	s.mode = r.Mode
	config.Card = r.Card
	config.Link, config.MTU, config.HostName, config.Search, config.Log, config.Logger = link, r.MTU, r.HostName, r.Search, newEventLog(s.log).note, s.log
	if len(r.Authority) > 0 {
		if config.Proxy, err = s.reads(r.Authority, answers); err != nil {
			return errors.Join(err, link.Close())
		}
	}
	if s.network, err = stack.New(config); err != nil {
		return err
	}
	go func() { s.log.Info("the guest's network ended", "err", s.network.Serve(context.Background())) }()
	return nil
}

// reads makes the proxy that reads requests, by what authority.Parse reads.
func (s *server) reads(text []byte, answers []proxy.Answer) (*proxy.Proxy, error) {
	vouches, err := authority.Parse(text)
	if err != nil {
		return nil, err
	}
	return proxy.New(proxy.Options{Authority: vouches, Secrets: s.secrets.table, Answers: answers, Logger: s.log}), nil
}

func answersOf(told []wire.Response) (answers []proxy.Answer) {
	for _, a := range told {
		answers = append(answers, proxy.Answer{Host: secret.Host{Name: a.Host, Port: a.Port}, Path: a.Path, JSON: a.JSON})
	}
	return answers
}

// publish leads connections to a listening socket, or datagrams to one, to the guest.
func (s *server) publish(r wire.Publish, socket *os.File) error {
	defer socket.Close() // what is made of it has a duplicate
	stop, err := s.lead(r, socket)
	if err == nil {
		s.published[r.ID] = stop
	}
	return err
}

func (s *server) lead(r wire.Publish, socket *os.File) (stop func(), err error) {
	if r.Proto == network.UDP {
		conn, err := net.FilePacketConn(socket)
		if err != nil {
			return nil, err
		}
		return s.network.PublishPacket(conn, r.GuestPort)
	}
	listener, err := net.FileListener(socket)
	if err != nil {
		return nil, err
	}
	return s.network.Publish(listener, r.GuestPort)
}
