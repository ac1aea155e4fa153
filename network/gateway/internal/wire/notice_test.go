package wire

import (
	"errors"
	"io"
	"testing"

	"github.com/sourcery-zone/sandbox/network/stack"
)

func TestNoticesNeverWaitAndLossIsTold(t *testing.T) {
	reader, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	writer, err := NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	n := NewNotifier(writer)
	const sent = 10000 // more than a socket holds
	for range sent {
		n.Notify(Notice{Question: &stack.Question{Host: "example.com"}})
	}
	lost := n.lost
	if lost == 0 || lost == sent {
		t.Fatalf("%d of %d notices were lost that nobody read", lost, sent)
	}
	for i := range sent - lost {
		if notice, err := reader.NextNotice(); err != nil || notice.Lost != 0 || notice.Question.Host != "example.com" {
			t.Fatalf("the notice %d is %+v: %v", i, notice, err)
		}
	}
	for _, want := range []int{lost, 0} {
		n.Notify(Notice{})
		if notice, err := reader.NextNotice(); err != nil || notice.Lost != want {
			t.Errorf("%d are told to be lost, not %d: %v", notice.Lost, want, err)
		}
	}
	writer.Close()
	if _, err := reader.NextNotice(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}
