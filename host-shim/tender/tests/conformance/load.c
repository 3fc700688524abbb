/*
 * Takes an image as far as the reference tender does before it needs KVM: with upstream's own functions (libcommon.a),
 * in the order of upstream's main(). They print their complaint and exit with status 1.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "elf.h"
#include "elf_abi.h"
#include "hvt_abi.h"
#include "mft.h"

enum { MEM_SIZE = 32 << 20 };

static int print_segment(void *arg, uint64_t start, uint64_t end, int prot)
{
    (void)arg;
    printf("segment %#lx to %#lx, protection %d\n", start, end, prot);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(1, "usage: load IMAGE");
    int fd = open(argv[1], O_RDONLY);
    if (fd == -1)
        err(1, "%s", argv[1]);

    struct abi1_info *abi;
    size_t abi_size;
    if (elf_load_note(fd, argv[1], ABI1_NOTE_TYPE, ABI1_NOTE_ALIGN, ABI1_NOTE_MAX_SIZE, (void **)&abi, &abi_size) == -1)
        errx(1, "no ABI1 note");
    if (abi->abi_target != HVT_ABI_TARGET || abi->abi_version != HVT_ABI_VERSION)
        errx(1, "target %u, ABI version %u", abi->abi_target, abi->abi_version);

    struct mft *mft;
    size_t mft_size;
    if (elf_load_note(fd, argv[1], MFT1_NOTE_TYPE, MFT1_NOTE_ALIGN, MFT1_NOTE_MAX_SIZE, (void **)&mft, &mft_size) == -1)
        errx(1, "no MFT1 note");
    if (mft_validate(mft, mft_size) == -1)
        errx(1, "the manifest is invalid");
    for (unsigned i = 0; i != mft->entries; i++)
        if (mft->e[i].type < MFT_RESERVED_FIRST)
            printf("device %s of type %s\n", mft->e[i].name, mft_type_to_string(mft->e[i].type));

    uint8_t *mem = calloc(1, MEM_SIZE);
    if (mem == NULL)
        err(1, "memory");
    uint64_t entry, end;
    elf_load(fd, argv[1], mem, MEM_SIZE, HVT_GUEST_MIN_BASE, print_segment, NULL, &entry, &end);
    printf("loaded, entry %#lx, end %#lx\n", entry, end);
    return 0;
}
