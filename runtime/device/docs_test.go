package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The example of a declaration in the documentation is one that loads, and the
// table of those that come with skiff is complete.
func TestDocumentedDeclaration(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "gpu.md"))
	if err != nil {
		t.Fatal(err)
	}
	var example strings.Builder
	inside := false
	for line := range strings.Lines(string(data)) {
		text, indented := strings.CutPrefix(line, "    ")
		inside = indented && (inside || strings.HasPrefix(text, "name: "))
		if inside {
			example.WriteString(text)
		}
	}
	v, err := parseFake([]byte(example.String()), "docs/gpu.md")
	if err != nil {
		t.Fatalf("the documented declaration does not load: %v\n%s", err, example.String())
	}
	if len(v.Devices) != 2 || v.Devices[0].UUID != FakePrefix+"left" || v.Devices[1].UUID != FakePrefix+"lab-1" || v.Links[0][1].Kind != LinkPHB {
		t.Errorf("the documented declaration says %+v", v)
	}
	for _, field := range append(append([]string{}, fixtureFields...), gpuFields...) {
		if !strings.Contains(example.String(), field+":") {
			t.Errorf("the documented declaration leaves out %s", field)
		}
	}
	for _, name := range FakeNames() {
		if !strings.Contains(string(data), "| `"+name+"` |") {
			t.Errorf("docs/gpu.md does not list %s", name)
		}
	}
}
