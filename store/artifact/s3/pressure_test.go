package s3

import (
	"context"
	"testing"

	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

// TestPressure: on a disk that is nearly full copies go, though within the bound of
// the cache; what is held, in use, or only here stays.
func TestPressure(t *testing.T) {
	server := miniotest.Start(t)
	inUse := map[Key]bool{{space, root + "/used"}: true}
	with := func(reserve int64) func(*Config) {
		return func(cfg *Config) {
			cfg.Reserve, cfg.InUse = reserve, func(context.Context) (map[Key]bool, error) { return inUse, nil }
		}
	}
	b := newBench(t, with(1))
	b.at(server.Host)
	text := map[string]string{"": "contents"}
	names := []string{"a", "b", "held", "used"}
	for _, name := range names {
		b.make(root+"/"+name, text)
		b.deliver(root + "/" + name)
	}
	b.make("minio://local/x", text)
	if went, err := b.Relieve(t.Context()); went != 0 || err != nil {
		t.Errorf("from a disk with room %d bytes went, %v", went, err)
	}
	if p, err := b.Pressure(); p.Low() || p.Copies != 32 || err != nil {
		t.Errorf("a disk with room: %+v, %v", p, err)
	}
	b.close()
	b.open(with(1 << 60)) // no disk has that much
	release := b.Hold(space, root+"/held")
	if went, err := b.Relieve(t.Context()); went != 16 || err != nil {
		t.Errorf("from a disk that is nearly full %d bytes went, want 16; %v", went, err)
	}
	for name, want := range map[string]bool{root + "/a": false, root + "/b": false, root + "/held": true, root + "/used": true, "minio://local/x": true} {
		if b.Exists(space, name) != want {
			t.Errorf("%s is here: %t", name, !want)
		}
	}
	if p, err := b.Pressure(); !p.Low() || p.Copies != 16 || err != nil {
		t.Errorf("a disk that is nearly full: %+v, %v", p, err)
	}
	release()
	clear(inUse)
	b.deliver(root + "/held") // the end of an upload is a look, too
	if b.Exists(space, root+"/used") || len(server.Keys("root")) != len(names) || !b.Exists(space, "minio://local/x") {
		t.Errorf("after an upload: used %t, the bucket has %v", b.Exists(space, root+"/used"), server.Keys("root"))
	}
}
