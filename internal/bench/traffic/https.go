package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// keyVariable is what requests are known by: in a guest, what stands for the secret of that name.
const keyVariable = "BENCH_KEY"

// pieces are what an amount is moved in, each of which takes its time of its own.
const pieces = 8

// browse makes requests of HTTPS, each of which takes its time of its own.
func browse(address, mode string, amount int64) error {
	// HTTP/1.1, as AI agents speak it; a map that is not nil keeps HTTP/2 off.
	t := &http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	b := browser{&http.Client{Transport: t}, address}
	times, piece := amount, int64(0)
	if mode == "https-down" || mode == "https-up" {
		times, piece = pieces, amount/pieces
	}
	for range times {
		if mode != "https-connect" { // which the connection is a part of
			if err := b.get("/"); err != nil {
				return err
			}
		}
		start := time.Now()
		var err error
		switch mode {
		case "https-request", "https-connect":
			err = b.get("/")
		case "https-first":
			err = b.first("/stream")
		case "https-down":
			err = b.get("/down?bytes=" + strconv.FormatInt(piece, 10))
		case "https-up":
			err = b.post("/up", piece)
		}
		took := time.Since(start)
		if err != nil {
			return err
		}
		if mode == "https-connect" {
			t.CloseIdleConnections()
		}
		fmt.Println(took.Nanoseconds())
	}
	return nil
}

type browser struct {
	*http.Client
	address string
}

func (b browser) do(method, path string, body io.Reader, length int64) (*http.Response, error) {
	r, err := http.NewRequest(method, b.address+path, body)
	if err != nil {
		return nil, err
	}
	r.ContentLength = length
	r.Header.Set("Authorization", "Bearer "+cmp.Or(os.Getenv(keyVariable), "of-the-length-that-such-a-key-has-elsewhere"))
	answer, err := b.Do(r)
	if err == nil && answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		err = fmt.Errorf("%s %s was answered with %s", method, path, answer.Status)
	}
	return answer, err
}

// get reads all of an answer.
func (b browser) get(path string) error {
	answer, err := b.do(http.MethodGet, path, nil, 0)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// first reads the first byte of an answer that does not end.
func (b browser) first(path string) error {
	answer, err := b.do(http.MethodGet, path, nil, 0)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(answer.Body, make([]byte, 1))
	return errors.Join(err, answer.Body.Close()) // and with it the connection
}

func (b browser) post(path string, amount int64) error {
	answer, err := b.do(http.MethodPost, path, io.LimitReader(text{}, amount), amount)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// text never ends.
type text struct{}

func (text) Read(b []byte) (int, error) {
	const line = "What is in a large request, mostly.\n"
	return copy(b, bytes.Repeat([]byte(line), len(b)/len(line)+1)), nil
}
