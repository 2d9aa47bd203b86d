package main

import (
	"reflect"
	"testing"
)

// A seed determines the images, which have 1 to 20 layers and differ from one another.
func TestNewImage(t *testing.T) {
	t.Parallel()
	digests, least, most := map[string]bool{}, maxLayers, 0
	for i := range 100 {
		m, _, err := newImage(1, i)
		if err != nil {
			t.Fatal(err)
		}
		if digests[m.digest] {
			t.Errorf("image %d is the same as an earlier one", i)
		}
		digests[m.digest] = true
		for _, layer := range m.layers {
			if digests[layer] {
				t.Errorf("image %d has a layer of another image", i)
			}
			digests[layer] = true
		}
		least, most = min(least, len(m.layers)), max(most, len(m.layers))
	}
	m, _, _ := newImage(1, 7)
	if again, _, _ := newImage(1, 7); !reflect.DeepEqual(m, again) {
		t.Errorf("an image is %v, then %v", m, again)
	}
	if other, _, _ := newImage(2, 7); other.digest == m.digest {
		t.Error("two seeds have the same image")
	}
	if least != 1 || most != maxLayers {
		t.Errorf("images have %d to %d layers, want 1 to %d", least, most, maxLayers)
	}
}
