package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/sourcery-zone/sandbox/network/aws"
	"github.com/sourcery-zone/sandbox/network/aws/awstest"
	"github.com/sourcery-zone/sandbox/network/secret"
)

const awsPlaceholder = "AKIAPLACEHOLDER23456"

var awsKey = aws.Credentials{AccessKeyID: "ASIAREALREALREALREAL", SecretAccessKey: "real/secret+real/secret+real/secret+real", SessionToken: strings.Repeat("real+token/", 60) + "=="}

// withAWS signs the requests to the host.
func withAWS(t testing.TB) (change, *secret.Table) {
	t.Helper()
	spec, err := secret.Parse("aws:work@" + host)
	if err != nil {
		t.Fatal(err)
	}
	table, err := secret.NewTable(secret.Entry{Spec: spec, Placeholder: awsPlaceholder})
	if err != nil {
		t.Fatal(err)
	}
	v, err := secret.NewAWS(awsKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Set(spec.Name, v); err != nil {
		t.Fatal(err)
	}
	return func(_ *lab, o *Options) { o.Secrets = table }, table
}

// call is a request as a guest's program signs it.
type call struct {
	name, method, path, body, service string
	hash                              string // that is told in a header; "hex": the right one
	header                            []string
	rule                              string // by which it is refused
	change                            func(*http.Request)
}

func (c call) request(t *testing.T) *http.Request {
	t.Helper()
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	r, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+host+c.path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(c.header); i += 2 {
		r.Header.Add(c.header[i], c.header[i+1])
	}
	sum := sha256.Sum256([]byte(c.body))
	hash := hex.EncodeToString(sum[:])
	if c.hash != "" {
		if c.hash != "hex" {
			hash = c.hash
		}
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	guests := sdk.Credentials{AccessKeyID: awsPlaceholder, SecretAccessKey: "nothing", SessionToken: "nothing"}
	err = v4.NewSigner().SignHTTP(t.Context(), guests, r, hash, c.service, "eu-central-1", time.Now(), func(o *v4.SignerOptions) { o.DisableURIPathEscaping = c.service == "s3" })
	if err != nil {
		t.Fatal(err)
	}
	if c.change != nil {
		c.change(r)
	}
	return r
}

func TestRequestsToAWSAreSignedAnew(t *testing.T) {
	form := []string{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}
	authorization := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	calls := []call{
		{name: "a form", method: "POST", path: "/", body: "Action=GetCallerIdentity&Version=2011-06-15", service: "sts", header: form},
		{name: "a query", method: "GET", path: "/?Action=GetCallerIdentity&Version=2011-06-15", service: "sts"},
		{name: "JSON", method: "POST", path: "/", body: `{"TableName":"a"}`, service: "dynamodb", header: []string{"X-Amz-Target", "DynamoDB_20120810.Scan", "Content-Type", "application/x-amz-json-1.0"}},
		{name: "a path that is escaped", method: "POST", path: "/model/a.b%3A1/invoke", body: `{}`, service: "bedrock"},
		{name: "an object", method: "PUT", path: "/bucket/a%20b%2Bc/%C3%A9%3D~/d", body: "text", service: "s3", hash: "hex"},
		{name: "an object's list", method: "GET", path: "/bucket?prefix=a%2Fb+c&list-type=2&delimiter=%2F&empty", service: "s3", hash: "hex"},
		{name: "an object that is not hashed", method: "PUT", path: "/bucket/key", body: strings.Repeat("0123456789abcdef", 1<<16), service: "s3", hash: "UNSIGNED-PAYLOAD"},
		{name: "an object with its hash at the end", method: "PUT", path: "/bucket/key", body: "4\r\ntext\r\n0\r\nx-amz-checksum-crc32:2/rwMA==\r\n\r\n", service: "s3", hash: "STREAMING-UNSIGNED-PAYLOAD-TRAILER", header: []string{"X-Amz-Trailer", "x-amz-checksum-crc32", "X-Amz-Decoded-Content-Length", "4", "Content-Encoding", "aws-chunked"}},
		{name: "a part of an object", method: "GET", path: "/bucket/key", service: "s3", hash: "hex", header: []string{"Range", "bytes=1-2", "X-Amz-Meta-A", "a  b ", "Accept-Encoding", "gzip"}},
		{name: "a connection", method: "GET", path: "/v2/domains/a/connections/b", service: "datazone"},
		{name: "the keys of a user", method: "POST", path: "/", body: "Action=ListAccessKeys&Version=2010-05-08", service: "iam", header: form},

		{name: "a role", method: "POST", path: "/", body: "Action=AssumeRole&RoleArn=a", service: "sts", header: form, rule: aws.RuleOperation},
		{name: "a session's key", method: "GET", path: "/?Action=GetSessionToken", service: "sts", rule: aws.RuleOperation},
		{name: "an operation that is not known", method: "POST", path: "/", body: "Action=GetMore", service: "sts", header: form, rule: aws.RuleOperation},
		{name: "two operations", method: "POST", path: "/?Action=GetCallerIdentity", body: "Action=AssumeRole", service: "sts", header: form, rule: aws.RuleForm},
		{name: "two operations in a form", method: "POST", path: "/", body: "Action=GetCallerIdentity&action=AssumeRole", service: "sts", header: form, rule: aws.RuleForm},
		{name: "an escaped operation", method: "POST", path: "/", body: "%41ction=%41ssumeRole", service: "sts", header: form, rule: aws.RuleOperation},
		{name: "a form that is read differently", method: "POST", path: "/", body: "Action=GetCallerIdentity;Action=AssumeRole", service: "sts", header: form, rule: aws.RuleForm},
		{name: "a form that says to be none", method: "POST", path: "/", body: "Action=AssumeRole", service: "sts", header: []string{"Content-Type", "text/plain"}, rule: aws.RuleForm},
		{name: "a compressed form", method: "POST", path: "/", body: "Action=GetCallerIdentity", service: "sts", header: append([]string{"Content-Encoding", "gzip"}, form...), rule: aws.RuleForm},
		{name: "a new key", method: "POST", path: "/", body: "Action=CreateAccessKey", service: "iam", header: form, rule: aws.RuleOperation},
		{name: "a login at a registry", method: "POST", path: "/", body: "{}", service: "ecr", header: []string{"X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"}, rule: aws.RuleOperation},
		{name: "the same in a path", method: "POST", path: "/service/AmazonEC2ContainerRegistry_V20150921/operation/getAuthorizationToken/", body: "{}", service: "ecr", rule: aws.RuleOperation},
		{name: "a role of a farm's", method: "GET", path: "/2023-10-12/farms/a/queues/b/user-roles", service: "deadline", rule: aws.RuleOperation},
		{name: "a connection with its key", method: "GET", path: "/v2/domains/a/connections/b?withSecret=true", service: "datazone", rule: aws.RuleOperation},
		{name: "a key of a bucket's", method: "POST", path: "/", body: "{}", service: "lightsail", header: []string{"X-Amz-Target", "Lightsail_20161128.CreateBucketAccessKey"}, rule: aws.RuleOperation},
		{name: "a key by CBOR", method: "POST", path: "/service/GameLift/operation/GetComputeAccess", body: "\xa0", service: "gamelift", rule: aws.RuleOperation},
		{name: "a token for a signature", method: "POST", path: "/token?aws_iam=t", body: "{}", service: "sso-oauth", rule: aws.RuleOperation},
		{name: "a session of S3", method: "GET", path: "/bucket?session", service: "s3", hash: "hex", rule: aws.RuleOperation},
		{name: "a service of keys", method: "GET", path: "/bucket?session", service: "s3express", hash: "hex", rule: aws.RuleOperation},

		{name: "pieces that are signed", method: "PUT", path: "/bucket/key", body: "a", service: "s3", hash: "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", rule: aws.RuleForm},
		{name: "pieces that are signed, and their end", method: "PUT", path: "/bucket/key", body: "a", service: "s3", hash: "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", rule: aws.RuleForm},
		{name: "SigV4a", method: "GET", path: "/", service: "s3", hash: "hex", change: authorization("AWS4-ECDSA-P256-SHA256 Credential=" + awsPlaceholder + "/20260101/s3/aws4_request, SignedHeaders=host, Signature=00"), rule: aws.RuleForm},
		{name: "an address that is signed", method: "GET", path: "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + awsPlaceholder + "%2F20260101%2Feu-central-1%2Fs3%2Faws4_request", service: "s3", change: func(r *http.Request) { r.Header.Del("Authorization") }, rule: aws.RuleForm},
		{name: "another date", method: "GET", path: "/", service: "s3", hash: "hex", change: func(r *http.Request) { r.Header.Set("X-Amz-Date", "20200101T000000Z") }, rule: aws.RuleForm},
		{name: "the number elsewhere", method: "GET", path: "/", service: "s3", hash: "hex", header: []string{"X-Other", awsPlaceholder}, rule: secret.RuleMisplaced},
		{name: "the number twice", method: "GET", path: "/", service: "s3", hash: "hex", change: func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "SignedHeaders=", "SignedHeaders="+awsPlaceholder+";", 1))
		}, rule: secret.RuleMisplaced},
	}
	both(t, func(t *testing.T, h2 bool) {
		var seen atomic.Pointer[error]
		with, table := withAWS(t)
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := awstest.Verify(r, awsKey)
			if err == nil && r.Header.Get("X-Amz-Meta-A") != "" && (r.Header.Get("Range") == "" || r.Header.Get("Accept-Encoding") != "identity") {
				err = fmt.Errorf("the host gets %v", r.Header)
			}
			seen.Store(&err)
			told := fmt.Sprintf("<Error><Token>%s</Token>%s</Error>", r.Header.Get("X-Amz-Security-Token"), awsKey.AccessKeyID)
			w.Header().Set("Content-Length", strconv.Itoa(len(told)))
			fmt.Fprint(w, told)
		}), everything, with)
		client := l.client(h2)
		for _, c := range calls {
			t.Run(c.name, func(t *testing.T) {
				seen.Store(nil)
				response, err := client.Do(c.request(t))
				text := read(t, response, err)
				got := seen.Load()
				if c.rule != "" {
					if got != nil || response.StatusCode != http.StatusForbidden || response.Header.Get("Sandbox-Refused") != c.rule || !strings.Contains(html.UnescapeString(text), aws.Explain(c.rule)) {
						t.Errorf("the guest gets %s, %v\n%s", response.Status, response.Header, text)
					}
					l.refusal(strings.TrimSpace(c.rule + " " + c.method + " " + strings.SplitN(c.path, "?", 2)[0]))
					return
				}
				if got == nil || *got != nil {
					t.Fatalf("%s: %v\n%s", response.Status, got, text)
				}
				if strings.Contains(text, "real") || strings.Contains(text, awsKey.AccessKeyID) || response.ContentLength != int64(len(text)) {
					t.Errorf("the guest gets %d bytes: %s", response.ContentLength, text)
				}
			})
		}
		if err := table.Set(aws.VariableKeyID, secret.Value{}); err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(calls[0].request(t))
		if text := read(t, response, err); response.Header.Get("Sandbox-Refused") != secret.RuleNoValue {
			t.Errorf("a key that was taken away signs: %s\n%s", response.Status, text)
		}
	})
}

// TestOtherSignaturesPass has a guest that has a key of its own, or none.
func TestOtherSignaturesPass(t *testing.T) {
	var seen atomic.Pointer[string]
	with, _ := withAWS(t)
	l := newLab(t, "https", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(new(r.Header.Get("Authorization"))) }), everything, with)
	c := call{method: "GET", path: "/", service: "s3", hash: "hex"}
	for _, value := range []string{"", "AWS4-HMAC-SHA256 Credential=AKIAOTHER/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=00"} {
		c.change = func(r *http.Request) { r.Header.Set("Authorization", value) }
		response, err := l.client(false).Do(c.request(t))
		read(t, response, err)
		if got := *seen.Load(); got != value {
			t.Errorf("the host gets %q", got)
		}
	}
}
