package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/store/artifact"
)

// webTries is how often an address is asked before whoever waits is told.
const webTries = 3

// web is a client that goes no further than it may.
func (m *Mirror) web() *http.Client {
	dialer := &net.Dialer{Timeout: address.DefaultDialTimeout}
	return address.NewClient(address.Config{Reach: m.cfg.Reach, Dial: busy(dialer.DialContext, idleTimeout)})
}

// fetchWeb is Fetch for an http or https address.
func (m *Mirror) fetchWeb(ctx context.Context, key Key) error {
	if m.cfg.Reach == address.Nowhere {
		if m.Exists(key.Namespace, key.URI) {
			return nil
		}
		return fmt.Errorf("artifact %s: this daemon fetches nothing by address; start it with --pipeline-urls=public: %w", key.URI, ErrSettings)
	}
	unlock, err := m.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	client := m.web()
	defer client.CloseIdleConnections()
	pause := firstPause
	for try := 1; ; try++ {
		err = m.getWeb(ctx, client, key)
		if err == nil || Lasting(err) || try == webTries || ctx.Err() != nil {
			break
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause *= 2
	}
	if err != nil {
		return fmt.Errorf("artifact %s: %w", key.URI, err)
	}
	m.tidy(ctx)
	return nil
}

// getWeb downloads what is at an address unless what is here is the same.
func (m *Mirror) getWeb(ctx context.Context, client *http.Client, key Key) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, key.URI, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", artifact.ErrInvalid, err)
	}
	req.Header.Set("Accept-Encoding", "identity") // the file as it is published
	known, _ := m.records.get(key)
	here := m.Exists(key.Namespace, key.URI) && known.Version != ""
	if here && known.Tag != "" {
		req.Header.Set("If-None-Match", known.Tag)
	}
	res, err := client.Do(req)
	if err != nil {
		return webError(err)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case here && res.StatusCode == http.StatusNotModified, here && res.StatusCode == http.StatusOK && versionOf(res) == known.Version:
		m.records.touch(key)
		return nil
	case res.StatusCode != http.StatusOK:
		return webStatus(res)
	}
	if err := m.makeRoom(ctx, max(0, res.ContentLength)); err != nil {
		return err
	}
	in, err := m.Receive(key.Namespace, key.URI)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Abort()) }()
	file, err := in.Create("")
	if err != nil {
		return err
	}
	size, err := m.copyWeb(file, res)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := m.records.put(key, record{Size: size}); err != nil { // as in download
		return err
	}
	if err := in.Commit(ctx); err != nil {
		return err
	}
	return m.records.put(key, record{Version: versionOf(res), Tag: res.Header.Get("ETag"), Size: size})
}

// copyWeb writes a body to a file. Where its length is not known beforehand it may
// take what room there is.
func (m *Mirror) copyWeb(file io.Writer, res *http.Response) (int64, error) {
	room, err := m.Room()
	if err != nil {
		return 0, err
	}
	most := max(0, room-headroom)
	n, err := io.Copy(file, io.LimitReader(res.Body, most+1))
	switch {
	case err != nil: // a body that is short of its length, among others
		return n, fmt.Errorf("%s: %w: after %d bytes: %w", res.Request.URL.Host, ErrAway, n, err)
	case n > most:
		return n, fmt.Errorf("%w: there is no room for it: it has more than %d MiB", errLocal, most>>20)
	}
	return n, nil
}

// versionOf identifies what a response has; empty where the server does not.
func versionOf(res *http.Response) string {
	if tag := res.Header.Get("ETag"); tag != "" {
		return "etag:" + tag
	}
	if date := res.Header.Get("Last-Modified"); date != "" {
		return fmt.Sprintf("date:%s:%d", date, res.ContentLength)
	}
	return ""
}

// webVersion is Version for an http or https address.
func (m *Mirror) webVersion(ctx context.Context, uri string) (string, error) {
	client := m.web()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, uri, nil)
	if err != nil {
		return "", fmt.Errorf("artifact %s: %w: %w", uri, artifact.ErrInvalid, err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("artifact %s: %w", uri, webError(err))
	}
	_ = res.Body.Close() // a HEAD has none
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("artifact %s: %w", uri, webStatus(res))
	}
	version := versionOf(res)
	if version == "" {
		return "", fmt.Errorf("artifact %s: %s gives nothing to tell one version from the next: %w", uri, res.Request.URL.Host, ErrSettings)
	}
	return version, nil
}

// webError gives an error of a request its class.
func webError(err error) error {
	if sent, is := errors.AsType[*url.Error](err); is {
		err = sent.Err
	}
	if errors.Is(err, address.ErrForbidden) {
		return fmt.Errorf("%w: %w (--pipeline-urls says from where)", ErrSettings, err)
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// webStatus is the error that an answer is.
func webStatus(res *http.Response) error {
	class := ErrDenied
	switch {
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusGone:
		class = artifact.ErrNotFound
	case res.StatusCode >= http.StatusInternalServerError, res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusRequestTimeout:
		class = ErrAway
	}
	return fmt.Errorf("%s answers %s: %w", res.Request.URL.Host, res.Status, class)
}
