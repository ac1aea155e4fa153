// Package awstest judges signatures as AWS does, by what its documentation says and not by what the SDK does.
package awstest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/network/aws"
)

// Verify tells what is wrong with the signature of a request that a server got, whose body it reads and puts back. The rules
// are those of "Create a signed AWS API request" in the IAM User Guide.
func Verify(r *http.Request, by aws.Credentials) error {
	a, ok := aws.ParseAuthorization(r.Header.Get("Authorization"))
	if !ok || a.KeyID != by.AccessKeyID {
		return fmt.Errorf("the header is %q", r.Header.Get("Authorization"))
	}
	if token := r.Header.Get("X-Amz-Security-Token"); token != by.SessionToken {
		return fmt.Errorf("the session's token is %q", token)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if said := r.Header.Get("X-Amz-Content-Sha256"); said != "" {
		if len(said) == len(hash) && said != hash {
			return fmt.Errorf("the hash of the body is %s, and said to be %s", hash, said)
		}
		hash = said
	}
	var headers strings.Builder
	if !slices.IsSorted(a.SignedHeaders) || !slices.Contains(a.SignedHeaders, "host") {
		return fmt.Errorf("the headers are %q", a.SignedHeaders)
	}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") && !slices.Contains(a.SignedHeaders, name) {
			return fmt.Errorf("the header %s is not signed", name)
		}
	}
	for _, name := range a.SignedHeaders {
		values := slices.Clone(r.Header.Values(name))
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{fmt.Sprint(r.ContentLength)}
		}
		for i := range values {
			values[i] = strings.Join(strings.Fields(values[i]), " ")
		}
		headers.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	path := r.URL.EscapedPath()
	if a.Service == "s3" {
		path = r.URL.Path
	}
	var query []string
	for name, values := range r.URL.Query() {
		for _, value := range values {
			query = append(query, escape(name, "")+"="+escape(value, ""))
		}
	}
	slices.Sort(query)
	canonical := strings.Join([]string{r.Method, escape(path, "/"), strings.Join(query, "&"), headers.String(), strings.Join(a.SignedHeaders, ";"), hash}, "\n")
	scope := strings.Join([]string{a.Date, a.Region, a.Service, "aws4_request"}, "/")
	sum = sha256.Sum256([]byte(canonical))
	key := []byte("AWS4" + by.SecretAccessKey)
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	want := hex.EncodeToString(mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hex.EncodeToString(sum[:])}, "\n")))
	if !strings.HasSuffix(r.Header.Get("Authorization"), "Signature="+want) {
		return fmt.Errorf("the signature is not %s: %q, of\n%s", want, r.Header.Get("Authorization"), canonical)
	}
	return nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// escape is UriEncode of the guide.
func escape(text, but string) string {
	escaped := strings.NewReplacer("+", "%20", "%7E", "~").Replace(url.QueryEscape(text))
	if but != "" {
		escaped = strings.ReplaceAll(escaped, url.QueryEscape(but), but)
	}
	return escaped
}
