package gateway_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/sourcery-zone/sandbox/network/aws"
	"github.com/sourcery-zone/sandbox/network/aws/awstest"
	"github.com/sourcery-zone/sandbox/network/gateway"
)

const awsPlaceholder = "AKIAPLACEHOLDER23456"

var awsKey = aws.Credentials{AccessKeyID: "ASIAREALREALREALREAL", SecretAccessKey: "real/secret+real/secret+real/secret+real", SessionToken: strings.Repeat("real+token/", 60)}

// newAWS is a network in which there is AWS, for those who sign with a key that no guest has.
func newAWS(t *testing.T) (inside *guest, client *http.Client, certificate []byte) {
	own, internet := newAuthority(t), newAuthority(t)
	p := newProviderOf(t, internet, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		switch err := awstest.Verify(r, awsKey); {
		case err != nil:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>%v</Message></Error></ErrorResponse>", err)
		case strings.HasPrefix(r.Host, "sts."):
			fmt.Fprint(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:user/me</Arn><UserId>ME</UserId><Account>000000000000</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
		case r.Method == http.MethodPut:
			w.Header().Set("ETag", r.Header.Get("X-Amz-Content-Sha256"))
		default:
			fmt.Fprint(w, "what is stored")
		}
	}))
	o := reading(t, own, internet)
	o.Allow, o.Upstream = []string{"*.amazonaws.com"}, p.upstream
	o.Secrets = []gateway.Secret{{Spec: "aws:work", Placeholder: awsPlaceholder, Value: valueFile(t, awsKey.String())}}
	g, err := gateway.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	inside = newGuest(t, g)
	return inside, inside.client(own), own.Certificate()
}

func TestAllOfAWSIsSignedFor(t *testing.T) {
	_, client, _ := newAWS(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for host, region := range map[string]string{"sts.eu-central-1.amazonaws.com": "eu-central-1", "my-bucket.s3.eu-central-1.amazonaws.com": "us-east-1"} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/?Action=GetCallerIdentity", nil)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(nil)
		if err := v4.NewSigner().SignHTTP(ctx, sdk.Credentials{AccessKeyID: awsPlaceholder, SecretAccessKey: "nothing"}, r, hex.EncodeToString(sum[:]), host[:strings.IndexByte(host, '.')], region, time.Now()); err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if strings.Contains(host, region) {
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Errorf("%s answers %s: %v\n%s", host, answer.Status, err, text)
			}
		} else if err != nil || answer.Header.Get("Sandbox-Refused") != aws.RuleScope {
			t.Errorf("a signature for another region: %s: %v\n%s", answer.Status, err, text)
		}
	}
}

// TestTheCLIOfAWS has Amazon's own client, of 2025 or newer, reach AWS by way of the guest.
func TestTheCLIOfAWS(t *testing.T) {
	cli, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("there is no aws: install awscli to see what it makes of this")
	}
	inside, _, certificate := newAWS(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, err := inside.dialName(r.Context(), "tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer from.Close()
		fmt.Fprint(from, "HTTP/1.1 200 yes\r\n\r\n")
		go func() {
			_, _ = io.Copy(to, from)
			to.Close()
		}()
		_, _ = io.Copy(from, to)
	})}
	go func() { _ = proxy.Serve(l) }()
	t.Cleanup(func() { proxy.Close() })
	dir := t.TempDir()
	bundle, object := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "object")
	for name, text := range map[string][]byte{bundle: certificate, object: make([]byte, 1<<20)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), cli, args...)
		cmd.Env = append(os.Environ(), "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull, "AWS_CA_BUNDLE="+bundle, "HTTPS_PROXY=http://"+l.Addr().String(),
			"AWS_ACCESS_KEY_ID="+awsPlaceholder, "AWS_SECRET_ACCESS_KEY=nothing", "AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		args []string
		want string
		rule string // by which it is refused
	}{
		{[]string{"sts", "get-caller-identity", "--output", "text"}, "arn:aws:iam::000000000000:user/me", ""},
		{[]string{"s3api", "put-object", "--bucket", "my-bucket", "--key", "a b/c+d=é", "--body", object}, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", ""},
		{[]string{"sts", "get-session-token"}, "", aws.RuleOperation},
		{[]string{"dynamodb", "list-tables", "--region", "us-east-1", "--endpoint-url", "https://dynamodb.eu-central-1.amazonaws.com"}, "", aws.RuleScope},
		{[]string{"s3api", "get-object", "--bucket", "my-bucket", "--key", "a", "--region", "us-east-1", "--endpoint-url", "https://s3.eu-central-1.amazonaws.com", object}, "", aws.RuleScope},
	} {
		out, err := run(c.args...)
		if !strings.Contains(out, c.want+aws.Explain(c.rule)) || (err == nil) != (c.rule == "") {
			t.Errorf("aws %q: %v\n%s", c.args, err, out)
		}
	}
}
