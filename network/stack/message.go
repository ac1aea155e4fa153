package stack

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Types of records that package dnsmessage has no names for.
const (
	typeNAPTR dnsmessage.Type = 35
	typeSSHFP dnsmessage.Type = 44
	typeTLSA  dnsmessage.Type = 52
	typeSVCB  dnsmessage.Type = 64
	typeHTTPS dnsmessage.Type = 65
	typeCAA   dnsmessage.Type = 257
)

// forwarded are the types of records that hold no address to connect to.
var forwarded = map[dnsmessage.Type]bool{
	dnsmessage.TypeCNAME: true, dnsmessage.TypeMX: true, dnsmessage.TypeNS: true, dnsmessage.TypeSOA: true,
	dnsmessage.TypeSRV: true, dnsmessage.TypeTXT: true, dnsmessage.TypePTR: true,
	typeNAPTR: true, typeSSHFP: true, typeTLSA: true, typeCAA: true,
}

const (
	// leastSize is what each client takes, maxSize what is sent in one datagram, and maxMessage over a connection.
	leastSize  = 512
	maxSize    = 4096
	maxMessage = 65535

	// optionError is the extended error, and errorBlocked its code for "Blocked" (RFC 8914).
	optionError  = 15
	errorBlocked = 15
)

// question is what a client asks.
type question struct {
	dnsmessage.Question
	id        uint16
	recursion bool // desired
	extended  bool // the client knows EDNS
	size      int  // of an answer in a datagram
	rcode     dnsmessage.RCode
}

// parseQuestion reads a message. It is false for what must not be answered, and rcode says what is wrong with what
// must be.
func parseQuestion(message []byte) (q question, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || h.Response {
		return q, false
	}
	q.id, q.recursion, q.size = h.ID, h.RecursionDesired, leastSize
	if h.OpCode != 0 {
		q.rcode = dnsmessage.RCodeNotImplemented
		return q, true
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		q.rcode = dnsmessage.RCodeFormatError
		return q, true
	}
	q.Question = questions[0]
	if q.Class != dnsmessage.ClassINET {
		q.rcode = dnsmessage.RCodeNotImplemented
		return q, true
	}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		q.rcode = dnsmessage.RCodeFormatError
		return q, true
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return q, true
		}
		if err != nil || p.SkipAdditional() != nil {
			q.rcode = dnsmessage.RCodeFormatError
			return q, true
		}
		if h.Type == dnsmessage.TypeOPT {
			q.extended, q.size = true, min(max(int(h.Class), leastSize), maxSize)
		}
	}
}

// host is the name that is asked for, without the dot at its end.
func (q question) host() string { return strings.ToLower(strings.TrimSuffix(q.Name.String(), ".")) }

// fail returns a reply without answers.
func (q question) fail(rcode dnsmessage.RCode) reply {
	return reply{question: q, rcode: rcode, ttl: answerTTL}
}

// block returns a reply that a name does not exist, with a note why: after any other error, programs try again for a
// while.
func (q question) block(why string) reply {
	r := q.fail(dnsmessage.RCodeNameError)
	r.blocked = why
	return r
}

// reply is what a client is answered.
type reply struct {
	question  question
	rcode     dnsmessage.RCode
	blocked   string // by the policy, and why
	addresses []netip.Addr
	ttl       uint32 // of the addresses, in seconds
	answers   []dnsmessage.Resource
	authority []dnsmessage.Resource
}

// pack returns the message, which says that it was cut if it would be longer than size.
func (r reply) pack(size int) []byte {
	if message, err := r.message(false).Pack(); err == nil && len(message) <= size {
		return message
	}
	message, err := r.message(true).Pack()
	if err != nil {
		return nil
	}
	return message
}

func (r reply) message(cut bool) *dnsmessage.Message {
	m := &dnsmessage.Message{Header: dnsmessage.Header{
		ID: r.question.id, Response: true, RecursionDesired: r.question.recursion, RecursionAvailable: true,
		RCode: r.rcode, Truncated: cut,
	}}
	if r.question.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{r.question.Question}
	}
	if !cut {
		m.Answers, m.Authorities = slices.Clone(r.answers), r.authority
		for _, a := range r.addresses {
			m.Answers = append(m.Answers, addressRecord(r.question.Name, a, r.ttl))
		}
	}
	if r.question.extended {
		m.Additionals = append(m.Additionals, r.extension())
	}
	return m
}

func addressRecord(name dnsmessage.Name, a netip.Addr, ttl uint32) dnsmessage.Resource {
	h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttl}
	if a.Is4() {
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}}
	}
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}}
}

func (r reply) extension() dnsmessage.Resource {
	var h dnsmessage.ResourceHeader
	_ = h.SetEDNS0(maxSize, r.rcode, false) // which fails never
	body := &dnsmessage.OPTResource{}
	if r.blocked != "" {
		data := binary.BigEndian.AppendUint16(nil, errorBlocked)
		body.Options = []dnsmessage.Option{{Code: optionError, Data: append(data, r.blocked...)}}
	}
	return dnsmessage.Resource{Header: h, Body: body}
}

// reversed returns the address that a name such as 1.2.0.192.in-addr.arpa stands for, or below which it is, as
// b._dns-sd._udp.0.2.0.192.in-addr.arpa.
func reversed(host string) (netip.Addr, bool) {
	if labels, ok := strings.CutSuffix(host, ".in-addr.arpa"); ok {
		numbers := lastNumbers(labels, 4, 10)
		return netip.AddrFrom4([4]byte(append(numbers, 0, 0, 0, 0))), len(numbers) > 0
	}
	labels, ok := strings.CutSuffix(host, ".ip6.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	var b [16]byte
	digits := lastNumbers(labels, 2*len(b), 16)
	for i, v := range digits {
		b[i/2] |= v << (4 * (1 - i%2))
	}
	return netip.AddrFrom16(b), len(digits) > 0
}

// lastNumbers returns the numbers that the last labels of a name are, from its end on: bytes if the base is 10, and single
// digits if it is 16. Fewer than most are a network's, whose first address stands for it.
func lastNumbers(name string, most, base int) (numbers []byte) {
	labels := strings.Split(name, ".")
	slices.Reverse(labels)
	for _, label := range labels[:min(len(labels), most)] {
		v, err := strconv.ParseUint(label, base, 8)
		if err != nil || base == 16 && len(label) != 1 {
			break
		}
		numbers = append(numbers, byte(v))
	}
	return numbers
}
