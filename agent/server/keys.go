//go:build linux

package server

import (
	"fmt"
	"net"
	"os"
)

// listenForKeys listens for programs of the guest's user at the path, unless it is empty, and opens channels of that kind for
// them.
func (l *listeners) listenForKeys(path, kind string) bool {
	if path == "" {
		return false
	}
	listener, err := l.server.keysListener(path)
	if err != nil {
		l.server.Logger.Error("the host's keys cannot be used", "err", err)
		return false
	}
	return l.add(path, listener, func(conn net.Conn) { l.pass(conn.(*net.UnixConn), kind, nil) })
}

// keysListener puts a socket in the place of the one that there is, behind which
// may be a connection whose end was not noticed yet: it is the next one's only
// from then on. What is closed removes the name under which it was made, and so
// never a later one.
func (s *Server) keysListener(path string) (listener net.Listener, err error) {
	user, err := s.Users.Lookup("")
	if err != nil {
		return nil, err
	}
	fresh := path + ".new"
	_ = os.Remove(fresh) // of one that was interrupted
	if listener, err = net.Listen("unix", fresh); err != nil {
		return nil, err
	}
	err = os.Chmod(fresh, 0o600)
	if err == nil && os.Geteuid() == 0 {
		err = os.Chown(fresh, user.UID, user.GID)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("cannot make the socket %s: %w", path, err)
	}
	return listener, nil
}
