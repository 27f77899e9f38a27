package docker

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entry is one of an archive; contents stand for the size.
type entry struct {
	name     string
	kind     byte
	link     string
	contents string
	mode     int64
}

func archiveOf(t *testing.T, entries []entry) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.contents)), Mode: e.mode, Uid: 4711, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.contents)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// unpackIn unpacks into a folder that lies beside a file to be kept.
func unpackIn(t *testing.T, archive *bytes.Buffer, most unpackLimits) (dir string, err error) {
	t.Helper()
	outer := t.TempDir()
	dir = filepath.Join(outer, "volume")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outer, "kept"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = unpack(root, archive, most)
	left, readErr := os.ReadDir(outer)
	if data, fileErr := os.ReadFile(filepath.Join(outer, "kept")); fileErr != nil || string(data) != "kept" || readErr != nil || len(left) != 2 {
		t.Errorf("something was written outside: %q, %v, %v", data, fileErr, left)
	}
	return dir, err
}

var manyOf = unpackLimits{entries: 100, bytes: 1 << 20}

func TestUnpack(t *testing.T) {
	dir, err := unpackIn(t, archiveOf(t, []entry{
		{name: "./", kind: tar.TypeDir, mode: 0o700},
		{name: "./closed/", kind: tar.TypeDir},
		{name: "./closed/file", kind: tar.TypeReg, contents: "hello"},
		{name: "./tool", kind: tar.TypeReg, contents: "#!", mode: 0o4710},
		{name: "./no/folder/before", kind: tar.TypeReg},
		{name: "./link", kind: tar.TypeSymlink, link: "closed/file"},
		{name: "./no/up", kind: tar.TypeSymlink, link: "../closed"},
		{name: "./dangling", kind: tar.TypeSymlink, link: "nothing"},
		{name: "./round", kind: tar.TypeSymlink, link: "round"},
		{name: "./second", kind: tar.TypeLink, link: "./closed/file"},
	}), manyOf)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		name := strings.TrimPrefix(path, dir+"/")
		got[name] = info.Mode().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			got[name] += " " + string(data)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const link = "Lrwxrwxrwx"
	want := map[string]string{
		"closed": "drwxr-xr-x", "closed/file": "-rw-r--r-- hello", "tool": "-rwxr-xr-x #!", "no": "drwxr-xr-x",
		"no/folder": "drwxr-xr-x", "no/folder/before": "-rw-r--r-- ", "link": link, "no/up": link, "dangling": link, "round": link,
		"second": "-rw-r--r-- hello",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnpackRefusesWhatIsHostile(t *testing.T) {
	file := entry{name: "f", kind: tar.TypeReg, contents: "12345"}
	tests := []struct {
		name    string
		entries []entry
		most    unpackLimits
		want    string
	}{
		{"name that climbs", []entry{{name: "../kept", kind: tar.TypeReg}}, manyOf, "leads out"},
		{"name that climbs later", []entry{{name: "a/../../kept", kind: tar.TypeReg}}, manyOf, "leads out"},
		{"absolute name", []entry{{name: "/etc/passwd", kind: tar.TypeReg}}, manyOf, "leads out"},
		{"absolute link", []entry{{name: "l", kind: tar.TypeSymlink, link: "/etc/passwd"}}, manyOf, "leads out"},
		{"link that climbs", []entry{{name: "l", kind: tar.TypeSymlink, link: "../kept"}}, manyOf, "leads out"},
		{"link that climbs through another", []entry{
			{name: "a/b", kind: tar.TypeDir}, {name: "a/b/up", kind: tar.TypeSymlink, link: "../.."},
			{name: "l", kind: tar.TypeSymlink, link: "a/b/up/../kept"},
		}, manyOf, "leads out"},
		{"file through a link", []entry{{name: "l", kind: tar.TypeSymlink, link: ".."}, {name: "l/kept", kind: tar.TypeReg}}, manyOf, "escapes"},
		{"folder through a link", []entry{{name: "l", kind: tar.TypeSymlink, link: ".."}, {name: "l/new", kind: tar.TypeDir}}, manyOf, "escapes"},
		{"file over a link", []entry{{name: "l", kind: tar.TypeSymlink, link: "../kept"}, {name: "l", kind: tar.TypeReg, contents: "x"}}, manyOf, "exists"},
		{"hard link outside", []entry{{name: "h", kind: tar.TypeLink, link: "../kept"}}, manyOf, "leads out"},
		{"hard link to a link", []entry{{name: "d/l", kind: tar.TypeSymlink, link: ".."}, {name: "h", kind: tar.TypeLink, link: "d/l"}}, manyOf, "no file"},
		{"twice", []entry{file, file}, manyOf, "exists"},
		{"device", []entry{{name: "null", kind: tar.TypeChar}}, manyOf, "neither"},
		{"block device", []entry{{name: "disk", kind: tar.TypeBlock}}, manyOf, "neither"},
		{"pipe", []entry{{name: "pipe", kind: tar.TypeFifo}}, manyOf, "neither"},
		{"too many", []entry{{name: "a", kind: tar.TypeDir}, {name: "b", kind: tar.TypeDir}}, unpackLimits{entries: 1, bytes: 1}, "too many entries"},
		{"too large", []entry{file, {name: "g", kind: tar.TypeReg, contents: "678"}}, unpackLimits{entries: 9, bytes: 7}, "too many bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := unpackIn(t, archiveOf(t, tt.entries), tt.most)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	t.Run("cut off", func(t *testing.T) {
		whole := archiveOf(t, []entry{file}).Bytes()
		if _, err := unpackIn(t, bytes.NewBuffer(whole[:514]), manyOf); err == nil {
			t.Error("half a file was taken for a whole one")
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add("a/b", "../x", byte(tar.TypeSymlink), "a/b/c")
	f.Add("l", "..", byte(tar.TypeSymlink), "l/kept")
	f.Add("x", "", byte(tar.TypeReg), "x")
	f.Fuzz(func(t *testing.T, name, link string, kind byte, second string) {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range []*tar.Header{{Name: name, Linkname: link, Typeflag: kind}, {Name: second, Typeflag: tar.TypeReg}} {
			if w.WriteHeader(h) != nil {
				return // no archive has such an entry
			}
		}
		if w.Close() != nil {
			return
		}
		_, _ = unpackIn(t, &buf, manyOf) // whether it is refused; unpackIn sees what is written outside
	})
}
