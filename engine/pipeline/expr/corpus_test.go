package expr

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/kfp"
)

// corpusFolder is where the published corpus lies beside a checkout, where it
// does; its files are not part of this repository.
const corpusFolder = "../../../../shared/conformance/kfp"

// TestCorpusExpressions compiles every condition and selector of the corpus.
func TestCorpusExpressions(t *testing.T) {
	var files []string
	err := filepath.WalkDir(corpusFolder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !strings.HasSuffix(path, ".md") && !strings.Contains(path, "/invalid/") {
			files = append(files, path)
		}
		return err
	})
	if os.IsNotExist(err) {
		t.Skip("the public corpus is not beside this checkout")
	}
	if err != nil {
		t.Fatal(err)
	}
	conditions, selectors := 0, 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pkg, err := kfp.Load(filepath.Base(file), data, kfp.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		checks := kfp.Checks{
			Condition: func(condition string, names []string) error { conditions++; return Check(condition, names) },
			Selector:  func(selector string) error { selectors++; return CheckSelector(selector) },
		}
		if problems := kfp.Validate(pkg, checks); len(problems) > 0 {
			t.Errorf("%s: %v", file, problems)
		}
	}
	if conditions < 20 || selectors < 5 {
		t.Errorf("compiled %d conditions and %d selectors, want the corpus's 20 and 5 at least", conditions, selectors)
	}
}
