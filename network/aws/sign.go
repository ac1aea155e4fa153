package aws

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/encoding/httpbinding"
	"golang.org/x/sync/semaphore"
)

// Rules of requests that are not signed.
const (
	RuleForm      = "aws-signature"   // it is not signed in the one way that can be signed anew
	RuleScope     = "aws-scope"       // the signature is for another service or region than the host is
	RuleOperation = "aws-credentials" // the answer is something by which one is known to AWS
	RuleSize      = "aws-size"        // the body has to be hashed, and is too large for that
)

// Explain says in sentences what a rule is about; nothing, of one that is not of this package.
func Explain(rule string) string {
	switch rule {
	case RuleForm:
		return "It does so only if they are signed by Signature Version 4 in the header Authorization, with a body that is hashed as a whole or not signed: so have the client neither make presigned URLs, nor use SigV4a, nor sign the pieces of a body (set DisablePayloadSigning in AWS's SDK for .NET, and disableChunkedEncoding in that for Java 1)."
	case RuleScope:
		return "This request is signed for another region or service than that of its host: set the region of the client."
	case RuleOperation:
		return "What this operation answers with is itself a key or a login, which would leave the user's machine: the user can use a profile that has the role already."
	case RuleSize:
		return "This request's body has to be hashed for that, and is larger than 64 MiB, or is not there as a whole: upload it by S3."
	}
	return ""
}

const (
	algorithm   = "AWS4-HMAC-SHA256"
	terminator  = "aws4_request"
	timeFormat  = "20060102T150405Z"
	headerDate  = "X-Amz-Date"
	headerHash  = "X-Amz-Content-Sha256"
	headerToken = "X-Amz-Security-Token"

	// maxHashed is how much of bodies is held at once to be hashed, in bytes: of services that are not told the hash in a
	// header, and take no more than that in one request.
	maxHashed = 64 << 20
	// maxForm is more than a form has that names an operation.
	maxForm = 256 << 10
)

// Authorization is the header of that name of a request that is signed.
type Authorization struct {
	KeyID, Date, Region, Service string
	SignedHeaders                []string // in small letters
}

// ParseAuthorization reads what SigV4 has in that header.
func ParseAuthorization(value string) (a Authorization, ok bool) {
	kind, rest, _ := strings.Cut(value, " ")
	if kind != algorithm {
		return a, false
	}
	var credential, signed, signature string
	for part := range strings.SplitSeq(rest, ",") {
		name, text, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case name == "Credential" && credential == "":
			credential = text
		case name == "SignedHeaders" && signed == "":
			signed = text
		case name == "Signature" && signature == "":
			signature = text
		default:
			return a, false
		}
	}
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[4] != terminator || signature == "" {
		return a, false
	}
	a = Authorization{KeyID: scope[0], Date: scope[1], Region: scope[2], Service: scope[3], SignedHeaders: strings.Split(signed, ";")}
	return a, a.KeyID != "" && a.Region != "" && a.Service != ""
}

// Signer signs requests, of several goroutines at once.
type Signer struct {
	hashed *semaphore.Weighted // bytes of bodies
}

// NewSigner returns a Signer.
func NewSigner() *Signer { return &Signer{semaphore.NewWeighted(maxHashed)} }

// Sign has a request, which goes to its URL's host as it is, signed with the credentials in place of what has signed it, or
// returns the rule by which it is not to go. What the signature is for stays the same: the date, the region, the service and
// the headers.
func (s *Signer) Sign(r *http.Request, a Authorization, c Credentials) (rule string) {
	at, err := time.Parse(timeFormat, r.Header.Get(headerDate))
	if err != nil || len(r.Header[headerDate]) != 1 || at.Format("20060102") != a.Date || len(r.Header[headerHash]) > 1 {
		return RuleForm
	}
	if !fits(r.URL.Hostname(), a) {
		return RuleScope
	}
	if rule := refused(r, a.Service); rule != "" {
		return rule
	}
	hash := r.Header.Get(headerHash)
	switch {
	case hash == "":
		if hash, rule = s.hash(r); rule != "" {
			return rule
		}
	case strings.HasPrefix(hash, "STREAMING-") && !strings.HasPrefix(hash, "STREAMING-UNSIGNED-"):
		return RuleForm // each piece of the body is signed as well, with a key that the guest does not have
	}
	signed := &http.Request{Method: r.Method, URL: new(*r.URL), Host: r.Host, Header: http.Header{}}
	for _, name := range a.SignedHeaders {
		switch name = http.CanonicalHeaderKey(name); name {
		case "Content-Length":
			signed.ContentLength = r.ContentLength
		case headerToken: // which the signer adds if there is one
		default:
			if values, ok := r.Header[name]; ok {
				signed.Header[name] = values
			}
		}
	}
	byS3 := strings.HasPrefix(a.Service, "s3")
	if byS3 { // whose paths are escaped once and in one way only
		path, err := url.PathUnescape(r.URL.EscapedPath())
		if err != nil {
			return RuleForm
		}
		signed.URL.Opaque = "//" + r.URL.Host + httpbinding.EscapePath(path, false)
	}
	by := sdk.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}
	// A signer of its own, as one keeps a key for each service and region, of which a guest can make up many.
	err = v4.NewSigner().SignHTTP(r.Context(), by, signed, hash, a.Service, a.Region, at, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = byS3 })
	if err != nil {
		return RuleForm
	}
	r.Header.Del(headerToken)
	for _, name := range []string{"Authorization", headerToken} {
		if values, ok := signed.Header[name]; ok {
			r.Header[name] = values
		}
	}
	return ""
}

// hash is the body's, which is read for it and held until the request is over.
func (s *Signer) hash(r *http.Request) (hash, rule string) {
	if r.Body == nil || r.Body == http.NoBody {
		sum := sha256.Sum256(nil)
		return hex.EncodeToString(sum[:]), ""
	}
	size := r.ContentLength
	if size < 0 {
		size = maxHashed
	}
	if size > maxHashed {
		return "", RuleSize
	}
	if s.hashed.Acquire(r.Context(), size) != nil {
		return "", RuleSize
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, size+1))
	if err != nil || int64(len(text)) > size {
		s.hashed.Release(size)
		return "", RuleSize
	}
	r.Body = &held{Reader: bytes.NewReader(text), was: r.Body, done: sync.OnceFunc(func() { s.hashed.Release(size) })}
	if r.ContentLength < 0 { // and services take no pieces whose number nobody knows
		r.ContentLength = int64(len(text))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), ""
}

// held is a body that was read.
type held struct {
	*bytes.Reader
	was  io.Closer
	done func() // may be nil
}

// Close lets go of the body. It can be called again, and by others.
func (h *held) Close() error {
	if h.done != nil {
		h.done()
	}
	return h.was.Close()
}

// region is a label of a host's name that is one, such as eu-central-1 and us-gov-west-1.
var region = regexp.MustCompile(`^[a-z]{2}(-[a-z]+){1,2}-[0-9]$`)

// customers are labels of hosts where a customer of AWS decides what becomes of requests, with the service that signatures for
// them are for.
var customers = map[string]string{"execute-api": "execute-api", "appsync-api": "appsync", "lambda-url": "lambda"}

// Domains are those in which AWS has its endpoints. Whoever else has a name there has no certificate for it.
func Domains() []string { return []string{"amazonaws.com", "api.aws", "amazonaws.com.cn"} }

// fits tells whether a host can be meant by a signature: of AWS's names that say their region, by the region; and of those of
// customers by the service, so that nobody there is shown a signature for another one.
func fits(host string, a Authorization) bool {
	if !slices.ContainsFunc(Domains(), func(d string) bool { return strings.HasSuffix(host, "."+d) }) {
		return true
	}
	for _, label := range slices.Backward(strings.Split(host, ".")) {
		if label == "s3" || strings.HasPrefix(label, "s3-") {
			return true // what is before it is a bucket's name
		}
		if region.MatchString(label) && label != a.Region {
			return false
		}
		if service, ok := customers[label]; ok && service != a.Service {
			return false
		}
	}
	return true
}
