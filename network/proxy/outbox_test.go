package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// slowConn takes a write when it is told to.
type slowConn struct {
	net.Conn
	begun chan int      // gets the size of each
	take  chan struct{} // lets one go on, or all when it is closed
	taken bytes.Buffer
	err   error
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.begun <- len(b)
	<-c.take
	if c.err != nil {
		return 0, c.err
	}
	return c.taken.Write(b)
}

func TestLargeAnswersGoOutInLargePieces(t *testing.T) {
	c := &slowConn{begun: make(chan int, 100), take: make(chan struct{})}
	o := newOutbox(c)
	record := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 16<<10) }
	answer := &body{ReadCloser: io.NopCloser(strings.NewReader("text")), out: o, left: 4}
	if _, err := io.ReadAll(answer); err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i := range 5 { // while the first one is being sent, the others have room
		if n, err := o.Write(record(i)); n != 16<<10 || err != nil {
			t.Fatal(n, err)
		}
		want = append(want, record(i)...)
		if i > 0 {
			continue
		}
		if size := <-c.begun; size != 16<<10 {
			t.Errorf("the first piece has %d bytes", size)
		}
	}
	written := make(chan error)
	go func() {
		_, err := o.Write(record(5))
		written <- err
	}()
	want = append(want, record(5)...)
	select {
	case err := <-written:
		t.Fatalf("more was taken than is kept: %v", err)
	case c.take <- struct{}{}:
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if size := <-c.begun; size != 64<<10 {
		t.Errorf("the second piece has %d bytes", size)
	}
	close(c.take)
	if err := answer.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.taken.Bytes(), want) {
		t.Errorf("when the answer has ended, %d bytes are sent of %d", c.taken.Len(), len(want))
	}
	if err := answer.Close(); err != nil || o.large != 0 || o.pending != nil || o.sent != nil {
		t.Errorf("a second end: %v; %d answers, and %d bytes are kept", err, o.large, cap(o.pending)+cap(o.sent))
	}

	// What is written now is sent when the write has ended.
	if _, err := o.Write([]byte("at once")); err != nil || !bytes.HasSuffix(c.taken.Bytes(), []byte("at once")) {
		t.Errorf("a write after it: %v", err)
	}
}

func TestAConnectionThatFailsEndsTheAnswer(t *testing.T) {
	failed := errors.New("reset")
	c := &slowConn{begun: make(chan int, 100), take: make(chan struct{}), err: failed}
	o := newOutbox(c)
	o.begin()
	if _, err := o.Write(make([]byte, maxPending)); err != nil {
		t.Fatal(err)
	}
	<-c.begun
	if _, err := o.Write(make([]byte, maxPending)); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := o.Write([]byte("more"))
		waiting <- err
	}()
	close(c.take)
	if err := <-waiting; !errors.Is(err, failed) {
		t.Errorf("who waited is told %v", err)
	}
	o.end()
	if _, err := o.Write([]byte("more")); !errors.Is(err, failed) {
		t.Errorf("after that: %v", err)
	}
}
