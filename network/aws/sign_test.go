package aws

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestASignatureIsForItsHost(t *testing.T) {
	for _, tt := range []struct {
		host, region, service string
		fits                  bool
	}{
		{"sts.amazonaws.com", "us-east-1", "sts", true},
		{"sts.eu-central-1.amazonaws.com", "eu-central-1", "sts", true},
		{"sts.eu-central-1.amazonaws.com", "us-east-1", "sts", false},
		{"ec2.us-gov-west-1.amazonaws.com", "us-gov-west-1", "ec2", true},
		{"ec2.us-gov-west-1.amazonaws.com", "us-west-1", "ec2", false},
		{"bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1", "bedrock", true},
		{"my-bucket-1.s3.eu-central-1.amazonaws.com", "eu-central-1", "s3", true},
		{"a.execute-api.eu-central-1.amazonaws.com", "eu-central-1", "execute-api", true},
		{"a.execute-api.eu-central-1.amazonaws.com", "us-east-1", "execute-api", false},
		{"a.execute-api.eu-central-1.amazonaws.com", "eu-central-1", "iam", false},
		{"a.execute-api.eu-central-1.amazonaws.com", "eu-central-1", "appsync", false},
		{"a.appsync-api.eu-central-1.amazonaws.com", "eu-central-1", "appsync", true},
		{"my-bucket-1.s3.eu-central-1.amazonaws.com", "us-east-1", "s3", false},
		{"my-bucket-1.minio.example.com", "us-east-1", "s3", true},
		{"minio.example.com", "us-east-1", "s3", true},
	} {
		if got := fits(tt.host, Authorization{Region: tt.region, Service: tt.service}); got != tt.fits {
			t.Errorf("%s %s at %s: %v", tt.service, tt.region, tt.host, got)
		}
	}
}

func TestBodiesThatAreHashedAreBounded(t *testing.T) {
	s := NewSigner()
	request := func(size int64, body io.Reader) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "https://dynamodb.eu-central-1.amazonaws.com/", body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = size
		return r
	}
	for _, r := range []*http.Request{request(maxHashed+1, strings.NewReader("a")), request(-1, io.LimitReader(zeros{}, maxHashed+1)), request(3, strings.NewReader("four"))} {
		if _, rule := s.hash(r); rule != RuleSize {
			t.Errorf("a body of %d bytes: %q", r.ContentLength, rule)
		}
	}
	// What is hashed counts until it is sent, and no longer.
	for range 3 {
		r := request(-1, strings.NewReader("text"))
		if hash, rule := s.hash(r); rule != "" || hash != "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1" || r.ContentLength != 4 || s.hashed.TryAcquire(1) {
			t.Errorf("%s, %q, %d bytes", hash, rule, r.ContentLength)
		}
		if text, err := io.ReadAll(r.Body); err != nil || string(text) != "text" {
			t.Errorf("the body is %q, %v", text, err)
		}
		for range 2 {
			r.Body.Close()
		}
		if !s.hashed.TryAcquire(maxHashed) {
			t.Fatal("a body counts that was sent")
		}
		s.hashed.Release(maxHashed)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func FuzzParseAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00")
	f.Add("AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-central-1/s3/aws4_request,SignedHeaders=,Signature=0,Signature=1")
	f.Fuzz(func(t *testing.T, value string) {
		a, ok := ParseAuthorization(value)
		if ok && (a.KeyID == "" || strings.Count(value, "Credential=") == 0 || !strings.Contains(value, a.KeyID+"/"+a.Date+"/"+a.Region+"/"+a.Service+"/"+terminator)) {
			t.Errorf("%q is read as %+v", value, a)
		}
	})
}
