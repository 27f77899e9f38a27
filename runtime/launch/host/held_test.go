package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// TestReadHeld: what no launcher writes is nothing, and what is shown is bounded.
func TestReadHeld(t *testing.T) {
	const fine = `{"commandID":"a","exitCode":3,"reason":"Error","at":"2026-01-01T00:00:00Z","until":"2026-01-01T01:00:00Z"}`
	for _, test := range []struct {
		name, text string
		want       bool
	}{
		{"a launcher's", fine, true},
		{"nothing", "", false},
		{"no JSON", "held", false},
		{"no command", strings.Replace(fine, `"a"`, `""`, 1), false},
		{"a success", strings.Replace(fine, `3`, `0`, 1), false},
		{"no exit code", strings.Replace(fine, `3`, `300`, 1), false},
		{"no reason", strings.Replace(fine, `"Error"`, `""`, 1), false},
		{"no end", strings.Replace(fine, `"until"`, `"since"`, 1), false},
		{"too large", fine[:len(fine)-1] + `,"message":"` + strings.Repeat("x", 2<<20) + `"}`, false},
		{"a long message", fine[:len(fine)-1] + `,"message":"` + strings.Repeat("é", 4000) + `"}`, true},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, launch.HeldFile), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		held := ReadHeld(dir)
		if (held != nil) != test.want {
			t.Errorf("%s: %+v", test.name, held)
		}
		if held != nil && (len(held.Message) > maxHeldText+4 || strings.ContainsRune(held.Message, '\uFFFD')) {
			t.Errorf("%s: a message of %d bytes", test.name, len(held.Message))
		}
	}
	if held := ReadHeld(filepath.Join(t.TempDir(), "none")); held != nil {
		t.Errorf("without a folder: %+v", held)
	}
}
