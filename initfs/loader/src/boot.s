# The way from QEMU's 32-bit hand-over to Rust in long mode. AT&T syntax.
#
# Page tables are laid out here: 4 GiB of identity map in 2 MiB pages, the same once more at
# PML4[256] (where the kernel expects physical memory), and an empty directory at -2 GiB, which
# Rust fills with the kernel's image.

.section .multiboot, "ax"
.align 4
multiboot_header:
    .long 0x1BADB002
    .long 0x00010003                    # page-aligned modules, memory map, address fields
    .long -(0x1BADB002 + 0x00010003)
    .long multiboot_header
    .long loader_start
    .long loader_load_end
    .long loader_end
    .long start

.section .text
.code32
.global start
start:
    cli
    cld
    movl $stack_top, %esp
    movl %eax, %edi                     # the multiboot magic
    movl %ebx, %esi                     # the multiboot information

    movl %cr4, %eax
    orl $0x620, %eax                    # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx              # EFER
    rdmsr
    orl $0x900, %eax                    # LME, NXE
    wrmsr
    movl %cr0, %eax
    andl $0xFFFFFFFB, %eax              # not EM
    orl $0x80010002, %eax               # PG, WP, MP
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $start64

.code64
start64:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl $stack_top, %esp
    xorl %ebp, %ebp
    call loader_main
    ud2

.section .data
.align 8
gdt:
    .quad 0
    .quad 0x00AF9A000000FFFF            # 64-bit code
    .quad 0x00CF92000000FFFF            # data
gdt_pointer:
    .word . - gdt - 1
    .long gdt

.align 4096
pml4:
    .quad pdpt_low + 3
    .fill 255, 8, 0
    .quad pdpt_low + 3
    .fill 254, 8, 0
    .quad pdpt_high + 3
pdpt_low:
    .quad pd_low + 3
    .quad pd_low + 0x1003
    .quad pd_low + 0x2003
    .quad pd_low + 0x3003
    .fill 508, 8, 0
pdpt_high:
    .fill 510, 8, 0
    .quad kernel_directory + 3
    .quad 0
pd_low:
    .set page, 0
    .rept 2048
    .quad (page << 21) | 0x83
    .set page, page + 1
    .endr
.global kernel_directory
kernel_directory:
    .fill 512, 8, 0

.section .bss
.align 16
    .skip 0x10000
stack_top:
