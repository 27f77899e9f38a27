package device

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/problem"
)

func TestParseFakeNode(t *testing.T) {
	for _, c := range []struct {
		text string
		want Node
		back string
		err  string
	}{
		{"cpu=64,mem=256Gi", Node{64_000, 256 << 30}, "cpu=64,mem=256Gi", ""},
		{" mem=1536Mi , cpu=500m ", Node{500, 1536 << 20}, "cpu=500m,mem=1536Mi", ""},
		{"memory=1Ti", Node{0, 1 << 40}, "mem=1Ti", ""},
		{"cpu=2", Node{2000, 0}, "cpu=2", ""},
		{"mem=1000", Node{0, 1000}, "mem=1000", ""},
		{"", Node{}, "", "want cpu=AMOUNT"},
		{"64", Node{}, "", "want cpu=AMOUNT"},
		{"gpu=8", Node{}, "", "gpu=8: want cpu=AMOUNT"},
		{"cpu=", Node{}, "", "cpu: quantity"},
		{"cpu=0", Node{}, "", "cpu: 0: want between"},
		{"cpu=-1", Node{}, "", "must not be negative"},
		{"cpu=1,cpu=2", Node{}, "", "cpu: is given twice"},
		{"mem=1,memory=2", Node{}, "", "mem: is given twice"},
		{"mem=9E", Node{}, "", "mem: 9E: want between"},
		{"cpu=9E", Node{}, "", "cpu: 9E: want between"},
	} {
		t.Run(c.text, func(t *testing.T) {
			got, err := ParseFakeNode(c.text)
			if c.err != "" {
				if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want an ErrInvalid that says %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want || got.String() != c.back {
				t.Errorf("got %+v (%s), %v; want %+v (%s)", got, got, err, c.want, c.back)
			}
			again, err := ParseFakeNode(got.String())
			if err != nil || again != got {
				t.Errorf("%s reads back as %+v, %v", got, again, err)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	two := []string{"GPU-a", "GPU-b"}
	for _, c := range []struct {
		name string
		got  []string
		want []string
	}{
		{"process, none", ProcessEnv(nil, false),
			[]string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES=void"}},
		{"process, none, on a node with fakes", ProcessEnv(nil, true),
			[]string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES=void"}},
		{"process, two", ProcessEnv(two, false),
			[]string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b"}},
		{"process, two fakes", ProcessEnv(two, true),
			[]string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b", "SKIFF_FAKE_GPU=GPU-a,GPU-b"}},
		{"container, none", ContainerEnv(ContainerGrant{CDI: true, Fake: true}), []string{"NVIDIA_VISIBLE_DEVICES=void"}},
		{"container, driver or legacy", ContainerEnv(ContainerGrant{UUIDs: two}),
			[]string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"}},
		{"container, cdi", ContainerEnv(ContainerGrant{UUIDs: two, CDI: true}),
			[]string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "NVIDIA_VISIBLE_DEVICES=void"}},
		{"container, fakes", ContainerEnv(ContainerGrant{UUIDs: two, Fake: true}),
			[]string{"CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b", "SKIFF_FAKE_GPU=GPU-a,GPU-b"}},
		{"container, fakes under nvidia's runtime", ContainerEnv(ContainerGrant{UUIDs: two, Fake: true, Hooked: true}),
			[]string{"CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", "NVIDIA_VISIBLE_DEVICES=void", "SKIFF_FAKE_GPU=GPU-a,GPU-b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLinkText(t *testing.T) {
	order := []string{"?", "SYS", "NODE", "PHB", "PXB", "PIX", "NV1", "NV2", "NV18"}
	last := -1
	for _, text := range order {
		l, err := ParseLink(text)
		if err != nil || l.String() != text || l.Class() <= last {
			t.Errorf("%s: %v, %s, class %d after %d", text, err, l, l.Class(), last)
		}
		last = l.Class()
	}
	for _, text := range []string{"", "NV", "NV0", "NV01", "NV+1", "NV37", "nv1", "PCI", "X "} {
		if l, err := ParseLink(text); err == nil {
			t.Errorf("%q reads as %s", text, l)
		}
	}
	if (Link{}).String() != "?" {
		t.Errorf("no link is %s, want ?", Link{})
	}
}

func TestInventoryCheck(t *testing.T) {
	ok := Inventory{Devices: []Device{{UUID: "GPU-a"}, {UUID: "GPU-b"}}}
	if err := ok.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spoil func(*Inventory)
		want  string
	}{
		{"no name", func(v *Inventory) { v.Devices[1].UUID = "" }, "devices[1].uuid"},
		{"list as a name", func(v *Inventory) { v.Devices[1].UUID = "GPU-b,GPU-c" }, "devices[1].uuid"},
		{"twice", func(v *Inventory) { v.Devices[1].UUID = "GPU-a" }, "is also devices[0]"},
		{"negative", func(v *Inventory) { v.Devices[0].MemoryBytes = -1 }, "negative"},
		{"a fake among real ones", func(v *Inventory) { v.Devices[0].Fake = true }, "do not mix"},
		{"a real one named as a fake", func(v *Inventory) { v.Devices[0].UUID = "GPU-FAKE-1" }, "GPU-FAKE-"},
		{"not square", func(v *Inventory) { v.Links = [][]Link{{{Kind: LinkSelf}}} }, "1 rows for 2 devices"},
		{"too many", func(v *Inventory) { v.Devices = make([]Device, MaxDevices+1) }, "65 devices"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := ok.Clone()
			c.spoil(&v)
			if err := v.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestWithHealth(t *testing.T) {
	v, err := LoadFake("pcie-2x")
	if err != nil {
		t.Fatal(err)
	}
	gone := v.WithHealth(Unknown, "the helper does not answer")
	for i, d := range gone.Devices {
		if d.Schedulable() || d.HealthReason == "" || !v.Devices[i].Schedulable() {
			t.Errorf("device %d: %+v from %+v", i, d, v.Devices[i])
		}
	}
	if gone.Equal(v) || !v.Equal(v.Clone()) {
		t.Error("Equal does not tell a change of health, or tells one where there is none")
	}
	if want := "2 × NVIDIA GeForce RTX 3090, 2 of them not healthy (fake pcie-2x: declared, no such hardware exists)"; gone.Summary() != want {
		t.Errorf("summary %q, want %q", gone.Summary(), want)
	}
	if d, ok := v.Find("GPU-FAKE-pcie-2x-1"); !ok || d.Index != 1 {
		t.Errorf("find: %+v, %v", d, ok)
	}
	if _, ok := v.Find("GPU-FAKE-none"); ok {
		t.Error("found a device that is not there")
	}
}
