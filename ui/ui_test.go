package ui_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/ui"
)

// TestThePolicyHolds: a file that the policy would keep a browser from using is
// one that does not work.
func TestThePolicyHolds(t *testing.T) {
	files, err := ui.Files()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, file := range files {
		served[file.Path] = true
	}
	refers := regexp.MustCompile(`(?:src|href)="([^"#][^"]*)"|from '\./([^']+)'`)
	found := 0
	for _, file := range files {
		text := string(file.Content)
		for _, match := range refers.FindAllStringSubmatch(text, -1) {
			to := match[1]
			if match[2] != "" {
				to = "/ui/" + match[2]
			}
			if to == "data:," {
				continue
			}
			found++
			if !served[to] {
				t.Errorf("%s refers to %s, which is not served", file.Path, to)
			}
		}
		for _, forbidden := range []string{"<style", "style=", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"} {
			if strings.Contains(text, forbidden) {
				t.Errorf("%s has %q in it", file.Path, forbidden)
			}
		}
		if strings.Contains(file.Type, "html") && regexp.MustCompile(`<script[^>]*>[^<]|\son[a-z]+=`).MatchString(text) {
			t.Errorf("%s has an inline script", file.Path)
		}
	}
	if found < 4 {
		t.Errorf("only %d references found; this test would prove nothing", found)
	}
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(ui.Policy, part) {
			t.Errorf("the policy lacks %s", part)
		}
	}
	if strings.Contains(ui.Policy, "unsafe") {
		t.Errorf("the policy allows what is unsafe: %s", ui.Policy)
	}
}
