package stack

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A server that sends single bytes to a guest that takes nothing of them.
func TestSmallPiecesForAGuestThatIsPausedAreBounded(t *testing.T) {
	const pieces = 30000
	l := newLab(t)
	begin, sent := make(chan struct{}), make(chan struct{})
	a := l.listen(81, func(c *net.TCPConn) {
		defer c.Close()
		<-begin
		for i := range pieces {
			_, _ = c.Write([]byte{byte(i)})
			for wait := time.Now(); time.Since(wait) < 20*time.Microsecond; { // until it was read, as far as one can tell
			}
		}
		close(sent)
	})
	c := l.mustConnect(a)
	check := watch(t, 6<<20)
	resume := l.pause()
	close(begin)
	<-sent
	check("after bytes that came one by one")
	resume()
	if t.Failed() {
		return
	}
	got, err := io.ReadAll(c)
	if err != nil || len(got) != pieces {
		t.Fatalf("the guest gets %d bytes: %v", len(got), err)
	}
	for i, b := range got {
		if b != byte(i) {
			t.Fatalf("the guest gets another byte %d", i)
		}
	}
}

// A server's many small messages may become one frame.
func TestAFrameOfManyPiecesIsSentWhole(t *testing.T) {
	l := newBareLab(t)
	l.barrier()
	want := make([]byte, 3*maxVector)
	var packet buffer.Buffer
	for i := range want {
		want[i] = byte(i)
		piece := buffer.MakeWithData(want[i : i+1])
		packet.Merge(&piece)
	}
	if err := l.network.stack.WritePacketToRemote(nic, guestMAC, header.IPv4ProtocolNumber, packet); err != nil {
		t.Fatal(err)
	}
	if got := l.receive(); !bytes.Equal(got[header.EthernetMinimumSize:], want) {
		t.Errorf("a frame of %d bytes has %d", len(want), len(got)-header.EthernetMinimumSize)
	}
}

// A guest asks as many questions as it likes, and need not take the answers.
func TestAnswersThatAGuestDoesNotTakeAreFew(t *testing.T) {
	l := newBareLab(t)
	l.barrier()
	guest := netip.AddrPortFrom(Guest, 4000)
	message := query(network.PolicyName, dnsmessage.TypeA, 0)
	question := append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
	l.sendIP(tcpData(guest, dnsAddress, header.TCPFlagSyn, 1, 0, nil, nil))
	h := l.segment(dnsAddress, guest, func(h header.TCP) bool { return h.Flags()&header.TCPFlagSyn != 0 })
	l.drainSocket()
	next, many := uint32(2), bytes.Repeat(question, 500)
	for range 10 {
		l.sendIP(tcpData(guest, dnsAddress, header.TCPFlagAck|header.TCPFlagPsh, next, h.SequenceNumber()+1, nil, many))
		next += uint32(len(many))
	}
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; { // in which there is time for all of them
		if events, _ := l.seen(); len(events) > 2000 {
			t.Fatalf("%d answers wait for the guest", len(events))
		}
	}
}

// The guest chooses how much it is sent at once, within limits.
func TestSegmentsAreNotAsSmallAsAGuestLikes(t *testing.T) {
	l := newBareLab(t)
	l.barrier()
	data := bytes.Repeat([]byte("x"), 3*leastSegment)
	to := l.listen(81, func(c *net.TCPConn) {
		_, _ = c.Write(data)
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	full := func(h header.TCP) bool { return len(h.Payload()) > 0 }
	for i, options := range [][]byte{
		{header.TCPOptionMSS, 4, 0, 1},
		{header.TCPOptionNOP, header.TCPOptionMSS, 4, 0x40, 0, header.TCPOptionMSS, 4, 0, 1, header.TCPOptionEOL, 0, 0},
		{header.TCPOptionMSS, 4, 0x40, 0},
	} {
		guest := netip.AddrPortFrom(Guest, uint16(4000+i))
		l.sendIP(tcpData(guest, to, header.TCPFlagSyn, 1, 0, options, nil))
		h := l.segment(to, guest, func(h header.TCP) bool { return h.Flags()&header.TCPFlagSyn != 0 })
		l.sendIP(tcpData(guest, to, header.TCPFlagAck, 2, h.SequenceNumber()+1, nil, nil))
		got := l.segment(to, guest, full)
		if len(got.Payload()) < leastSegment {
			t.Errorf("the options %x: a segment has %d bytes", options, len(got.Payload()))
		}
		// What an error of a router's would do, of which there is none.
		quoted := ipPacket(to.Addr(), Guest, header.TCPProtocolNumber, got)
		narrow := make(header.ICMPv4, header.ICMPv4MinimumSize)
		narrow.SetType(header.ICMPv4DstUnreachable)
		narrow.SetCode(header.ICMPv4FragmentationNeeded)
		narrow.SetMTU(68)
		narrow = append(narrow, quoted[:header.IPv4MinimumSize+header.TCPMinimumSize]...)
		narrow.SetChecksum(0)
		narrow.SetChecksum(header.ICMPv4Checksum(narrow, 0))
		l.sendIP(ipPacket(Guest, to.Addr(), header.ICMPv4ProtocolNumber, narrow))
		if again := l.segment(to, guest, func(h header.TCP) bool { return full(h) && h.SequenceNumber() == got.SequenceNumber() }); len(again.Payload()) < leastSegment {
			t.Errorf("the options %x: after an error, a segment has %d bytes", options, len(again.Payload()))
		}
	}
}

func FuzzRaiseSegments(f *testing.F) {
	f.Add([]byte{header.TCPOptionMSS, 4, 0, 1})
	f.Add([]byte{header.TCPOptionMSS, 4, 0, 1, header.TCPOptionMSS, 4, 0, 0})
	f.Add([]byte{header.TCPOptionSACKPermitted, 2, header.TCPOptionTS, 10, 1, 2, 3, 4, 5, 6, 7, 8, header.TCPOptionNOP, header.TCPOptionMSS, 4, 0, 40})
	f.Fuzz(func(t *testing.T, options []byte) {
		options = options[:min(len(options), header.TCPOptionsMaximumSize)&^3]
		packet := header.IPv4(tcpData(netip.AddrPortFrom(Guest, 1), netip.AddrPortFrom(public, 1), header.TCPFlagSyn, 1, 0, options, nil))
		raiseSegments(packet.Payload())
		if got := header.ParseSynOptions(header.TCP(packet.Payload()).Options(), false); got.MSS < leastSegment {
			t.Errorf("the options %x are read as segments of %d bytes", options, got.MSS)
		}
	})
}
