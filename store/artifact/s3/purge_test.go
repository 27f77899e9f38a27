package s3

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

// TestRemove: in as many requests as it takes; what has no mark, another owner's,
// or stands beside, stays, and nobody owns nothing.
func TestRemove(t *testing.T) {
	server := miniotest.Start(t)
	c := newClient(t, server.Host)
	c.batch = 3
	files := folder{}
	for i := range 8 {
		files[fmt.Sprintf("f%d", i)] = []byte("x")
	}
	up := func(owner Owner, key string, files folder) {
		t.Helper()
		if _, err := c.Upload(t.Context(), owner, miniotest.Bucket, key, files, nil); err != nil {
			t.Fatal(err)
		}
	}
	up("me", "a", files)
	up("you", "a/theirs", folder{"": []byte("x")})
	up("", "a/nobodys", folder{"": []byte("x")})
	up("me", "ab", folder{"": []byte("x")})
	if _, err := c.Remove(t.Context(), "", miniotest.Bucket, "a"); err != nil || len(server.Keys("a/")) != 10 {
		t.Errorf("nobody removed something: %v, %v", server.Keys("a"), err)
	}
	for range 2 { // the second time there is nothing to do
		others, err := c.Remove(t.Context(), "me", miniotest.Bucket, "a")
		if others != 2 || err != nil {
			t.Errorf("%d are others', want 2; %v", others, err)
		}
		if diff := cmp.Diff([]string{"a/nobodys", "a/theirs", "ab"}, server.Keys("")); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	}
	up("me", "big", folder{"": noise(5 << 20)})
	if info, err := c.stat(t.Context(), miniotest.Bucket, "big"); err != nil || objectOf(info, "big", "").mark == "" {
		t.Errorf("an upload in parts has no mark: %+v, %v", info.UserMetadata, err)
	}
	// Whoever sends the same contents over those of another has them.
	up("you", "ab", folder{"": []byte("x")})
	if others, err := c.Remove(t.Context(), "me", miniotest.Bucket, "ab"); others != 1 || err != nil {
		t.Errorf("what another sent since: %d others', %v", others, err)
	}
	server.Kill()
	c.retries = 0
	if _, err := c.Remove(t.Context(), "me", miniotest.Bucket, "ab"); !errors.Is(err, ErrAway) {
		t.Errorf("of a server that is away: %v", err)
	}
}
